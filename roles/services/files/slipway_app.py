"""What gunicorn serves: the app's own application, whose answers name the release that gave them.

An app that says so itself keeps its word. It is imported by SLIPWAY_APPLICATION as it would be alone, or where the
project has none, as Django makes one of its settings.
"""

import contextlib
import gc
import importlib
import os
import sys
from pathlib import Path

RUN = Path(os.environ["HOME"])  # the generation's own directory, until the app says otherwise
RELEASE = os.environ["RELEASE_ID"]
NAME = "X-Release"


def load(where):
    """The application behind ``package.module:name``, or what makes it behind ``package.module:name()``."""
    if not where:
        from django.core.wsgi import get_wsgi_application

        return get_wsgi_application()
    module, _, name = where.partition(":")
    found = importlib.import_module(module)
    for part in (name or "application").removesuffix("()").split("."):
        found = getattr(found, part)
    return found() if name.endswith("()") else found


def names(headers, name):
    return any(key.lower() == name for key, _value in headers)


def wsgi(app):
    def application(environ, start_response):
        def start(status, headers, *more):
            if not names(headers, NAME.lower()):
                headers = [*headers, (NAME, RELEASE)]
            return start_response(status, headers, *more)

        return app(environ, start)

    return application


def asgi(app):
    raw, value = NAME.lower().encode(), RELEASE.encode()

    async def application(scope, receive, send):
        async def told(message):
            if message["type"] in ("http.response.start", "websocket.accept"):
                headers = list(message.get("headers") or ())
                if not names(headers, raw):
                    message = {**message, "headers": [*headers, (raw, value)]}
            await send(message)

        await app(scope, receive, told if scope["type"] in ("http", "websocket") else send)

    return application


application = {"wsgi": wsgi, "asgi": asgi}[os.environ["SLIPWAY_INTERFACE"]](load(os.environ["SLIPWAY_APPLICATION"]))


def load_lazy():
    """Load now what Django loads at the first request: the URLs, with all that they import, and the template engines.

    What is wrong with them is the requests' to say: the health gate asks some.
    """
    if "django" not in sys.modules:
        return
    from django import template, urls

    # reverse() looks through all of them, those that are included as well.
    for load_it in (lambda: urls.get_resolver().reverse_dict, template.engines.all):
        with contextlib.suppress(Exception):
            load_it()


def before_forks():
    """Loaded once for all workers (--preload): they get no open connection, and share what is in memory for longer.

    Two processes on one connection would read each other's answers. Garbage collection writes to what it looks at, and
    so has each worker copy it; what is there by now stays (gc.freeze).
    """
    if "django.db" in sys.modules:
        sys.modules["django.db"].connections.close_all()
    if "django.core.cache" in sys.modules:
        sys.modules["django.core.cache"].close_caches()
    gc.collect()
    gc.freeze()


def ready():
    """What releasectl waits for of each worker before it lets anybody in (warm.py). Those of dead workers go."""
    with contextlib.suppress(OSError):  # the directory is full: that keeps no worker from serving
        (RUN / f"ready-{os.getpid()}").touch()
        for other in RUN.glob("ready-*"):
            if not Path("/proc", other.name.removeprefix("ready-")).exists():
                other.unlink(missing_ok=True)


load_lazy()
if os.environ.get("SLIPWAY_PRELOAD"):
    before_forks()
ready()
