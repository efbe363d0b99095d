"""What gunicorn serves: the app's own application, whose answers name the release that gave them.

An app that says so itself keeps its word. It is imported by SLIPWAY_APPLICATION as it would be alone, or where the
project has none, as Django makes one of its settings.
"""

import importlib
import os

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
