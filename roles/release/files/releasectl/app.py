"""How a release's app is built and run: what the variables app_* say, and otherwise what its code says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from . import guess
from .config import Config
from .errors import Refusal
from .names import shorten

# The operator's own settings module (app_settings_overlay): it begins with all that the app's module has.
OVERLAY = Path("/etc/slipway/overlay")
OVERLAY_MODULE = "slipway_settings"
# The workers of gunicorn that serve an ASGI application: uvicorn's own package has them no more, in a while.
ASGI_WORKERS = (("uvicorn_worker", "uvicorn_worker.UvicornWorker"), ("uvicorn", "uvicorn.workers.UvicornWorker"))


@dataclass(frozen=True)
class App:
    """All of it; ``guessed`` has what the variables leave open, with where it is from."""

    directory: str = "."
    python_path: tuple[str, ...] = ()
    settings_module: str = ""
    wsgi: str = ""
    asgi: str = ""
    celery: str = ""
    requirements: str = ""
    health_path: str = ""
    guessed: dict[str, str] = field(default_factory=dict)

    def public(self) -> dict[str, object]:
        """As release.json has it."""
        return {**asdict(self), "python_path": list(self.python_path)}


NAMES = {
    "directory": "directory", "settings_module": "django_settings_module", "wsgi": "wsgi", "asgi": "asgi",
    "celery": "celery_app", "requirements": "requirements", "health_path": "health_path",
}  # fmt: skip


def look(config: Config, source: Path) -> App:
    """What the variables say, completed by what lies in ``source``."""
    values: dict[str, str] = {}
    guessed: dict[str, str] = {}

    def take(name: str, given: str, found: guess.Found | None) -> str:
        if given or found is None:
            values[name] = given
        else:
            values[name] = found.value
            guessed[NAMES[name]] = f"{found.value} ({found.source})"
        return values[name]

    if config.directory:
        values["directory"] = config.directory
    else:
        found = guess.directory(source)
        values["directory"] = found.value
        if found.value != ".":
            guessed[NAMES["directory"]] = f"{found.value} ({found.source})"
    root = source / values["directory"]
    if not root.is_dir() or not root.resolve().is_relative_to(source.resolve()):
        raise Refusal(
            f"The artifact has no directory {shorten(values['directory'])}: correct app_directory, or leave it empty."
        )
    code = guess.python(root)
    take("settings_module", config.settings_module, guess.settings(root, code))
    # One of the two is named, or the first that is there: what is asynchronous is chosen, and not fallen into.
    wsgi = None if config.asgi else guess.application(root, code, "wsgi")
    asgi = None if config.wsgi or wsgi else guess.application(root, code, "asgi")
    take("wsgi", config.wsgi, wsgi)
    take("asgi", config.asgi, asgi)
    if not values["wsgi"] and not values["asgi"]:
        guessed[NAMES["wsgi"]] = "Django's own for these settings (there is no wsgi.py and no asgi.py)"
    take("celery", config.celery_app, guess.celery(root, code))
    take("requirements", config.requirements, guess.requirements(root, source))
    take("health_path", config.health_path, guess.health(root, code, guess.READY))
    path = config.python_path or (("src",) if _is_layout(root) else ())
    return App(**values, python_path=path, guessed=guessed)


def _is_layout(root: Path) -> bool:
    """Whether packages lie in src/ beside manage.py."""
    src = root / "src"
    return src.is_dir() and not (src / "__init__.py").is_file() and any(src.glob("*/__init__.py"))


def of(config: Config, release: str) -> App:
    """That of a prepared release: what was found when it was made, under what the variables say now."""
    directory = config.release_dir(release)
    try:
        raw = json.loads((directory / "release.json").read_text())["app"]
        known = {item.name for item in fields(App)}
        kept = App(**{**{k: v for k, v in raw.items() if k in known}, "python_path": tuple(raw["python_path"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Of a version of this program that did not note it.
        if not (directory / "src").is_dir():
            return App(settings_module=config.settings_module, wsgi=config.wsgi, health_path=config.health_path)
        kept = look(config, directory / "src")
    return App(
        directory=config.directory or kept.directory,
        python_path=config.python_path or kept.python_path,
        settings_module=config.settings_module or kept.settings_module,
        wsgi=config.wsgi or ("" if config.asgi else kept.wsgi),
        asgi=config.asgi or ("" if config.wsgi else kept.asgi),
        celery=config.celery_app or kept.celery,
        requirements=kept.requirements,
        health_path=config.health_path or kept.health_path,
        guessed=kept.guessed,
    )


def working(config: Config, release: str, app: App) -> Path:
    """The directory in which everything of the app starts: that of manage.py."""
    return config.release_dir(release) / "src" / app.directory


def python_path(config: Config, release: str, app: App) -> str:
    """PYTHONPATH of everything of the app: the operator's settings, the project, and what app_python_path adds."""
    root = working(config, release, app)
    places = [str(OVERLAY)] if config.settings_overlay else []
    return ":".join([*places, str(root), *(str(root / item) for item in app.python_path)])


def settings(config: Config, app: App) -> dict[str, str]:
    """Which settings module is loaded: with an overlay that one, which loads the app's own."""
    if config.settings_overlay:
        return {"DJANGO_SETTINGS_MODULE": OVERLAY_MODULE, "SLIPWAY_SETTINGS_MODULE": app.settings_module}
    return {"DJANGO_SETTINGS_MODULE": app.settings_module} if app.settings_module else {}


def check(config: Config, directory: Path, app: App) -> None:
    """Once it is built: refuse what could never start."""
    if not app.settings_module and any(directory.glob("venv/lib/python3*/site-packages/django/__init__.py")):
        raise Refusal(
            "No manage.py, wsgi.py or asgi.py of the artifact names a settings module: set app_django_settings_module."
        )
    if "celery-worker" in config.processes and not app.celery:
        raise Refusal(
            "This host is to run a Celery worker (it is in the group worker), and the artifact has no Celery app: set"
            " app_celery_app to it, or to none, and run site.yml."
        )
    if app.asgi:
        asgi_worker(config, directory.name)


def asgi_worker(config: Config, release: str) -> str:
    """The class of gunicorn's workers for an ASGI application, by what is installed in the release."""
    for name, worker in ASGI_WORKERS:
        if any(config.release_dir(release).glob(f"venv/lib/python3*/site-packages/{name}/__init__.py")):
            return worker
    raise Refusal(
        f"{release} is to be run as ASGI, and has neither uvicorn-worker nor uvicorn: add uvicorn-worker to its"
        " requirements (or to app_requirements_extra), or set app_wsgi."
    )


def launch(config: Config, release: str) -> dict[str, str]:
    """What the launcher of this generation's processes needs to know, as variables of its environment."""
    app = of(config, release)
    words = {
        "SLIPWAY_DIRECTORY": app.directory,
        "SLIPWAY_PYTHONPATH": python_path(config, release, app),
        "SLIPWAY_APPLICATION": app.asgi or app.wsgi,
        "SLIPWAY_INTERFACE": "asgi" if app.asgi else "wsgi",
        "SLIPWAY_WORKER_CLASS": asgi_worker(config, release) if app.asgi else "gthread",
        "SLIPWAY_CELERY_APP": app.celery,
    }
    return {**words, **settings(config, app)}
