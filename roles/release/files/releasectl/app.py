"""How a release's app is built and run: what the variables app_* say, then its image, otherwise what its code says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from . import guess, image
from .config import Config
from .errors import Refusal
from .image import Image
from .names import shorten

# The operator's own settings module (app_settings_overlay): it begins with all that the app's module has.
OVERLAY = Path("/etc/slipway/overlay")
OVERLAY_MODULE = "slipway_settings"
# What starts a process, where the host is to run it.
STARTED_BY = {"gunicorn": "gunicorn", "celery-worker": "celery", "celery-beat": "celery"}
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

    def tell(self, say: Callable[[str], None]) -> None:
        """What was guessed, as it is made."""
        for name, value in self.guessed.items():
            say(f"guessed app_{name}: {value}")


NAMES = {
    "directory": "directory", "settings_module": "django_settings_module", "wsgi": "wsgi", "asgi": "asgi",
    "celery": "celery_app", "requirements": "requirements", "health_path": "health_path",
}  # fmt: skip


def _given(config: Config, found: Image | None) -> Config:
    """What nobody has to guess. An image says where it starts, and where the variables are silent its settings and what
    it serves; what it needs is inside.
    """
    if found is None:
        return config
    served = {} if config.wsgi or config.asgi else {found.interface: found.application}
    module = config.settings_module or found.environment.get("DJANGO_SETTINGS_MODULE", "")
    return replace(config, directory=".", settings_module=module, requirements="", **served)  # type: ignore[arg-type]


def look(config: Config, source: Path, found: Image | None = None) -> App:
    """What the variables say, or the image, completed by what lies in ``source``."""
    config = _given(config, found)
    values: dict[str, str] = {}
    guessed: dict[str, str] = {}

    def take(name: str, given: str, seen: guess.Found | None) -> None:
        values[name] = given
        if not given and seen is not None:
            values[name] = seen.value
            guessed[NAMES[name]] = f"{seen.value} ({seen.source})"

    if config.directory:
        values["directory"] = config.directory
    else:
        values["directory"], why = guess.directory(source)
        if values["directory"] != ".":
            guessed[NAMES["directory"]] = f"{values['directory']} ({why})"
    root = source / values["directory"]
    if not root.is_dir() or not root.resolve().is_relative_to(source.resolve()):
        raise Refusal(
            f"The artifact has no directory {shorten(values['directory'])}: correct app_directory, or leave it empty."
        )
    code = guess.python(root)
    take("settings_module", config.settings_module, guess.settings(root, code))
    path = config.python_path
    if not path and (seen := guess.python_path(root, source, values["settings_module"])):
        path = (seen.value,)
        guessed["python_path"] = f"{seen.value} ({seen.source})"
    above = ".." in path and values["settings_module"].partition(".")[0] == root.name
    # One of the two is named, or the first that is there: what is asynchronous is chosen, and not fallen into.
    asynchronous = bool(config.asgi) or (found is not None and found.interface == "asgi")
    wsgi = None if asynchronous else guess.application(root, code, "wsgi", above)
    asgi = None if config.wsgi or wsgi else guess.application(root, code, "asgi", above)
    take("wsgi", config.wsgi, wsgi)
    take("asgi", config.asgi, asgi)
    if not values["wsgi"] and not values["asgi"]:
        guessed[NAMES["wsgi"]] = "Django's own for these settings (there is no wsgi.py and no asgi.py)"
    take("celery", config.celery_app, guess.celery(root, code, above))
    take("requirements", config.requirements, None if found else guess.requirements(root, source))
    take("health_path", config.health_path, guess.health(root, code, guess.READY))
    return App(**values, python_path=path, guessed=guessed)


def of(config: Config, release: str) -> App:
    """That of a prepared release: what was found when it was made, under what the variables say now."""
    directory = config.release_dir(release)
    found = image.of(directory)
    config = _given(config, found)
    try:
        raw = json.loads((directory / "release.json").read_text())["app"]
        known = {item.name for item in fields(App)}
        kept = App(**{**{k: v for k, v in raw.items() if k in known}, "python_path": tuple(raw["python_path"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Of a version of this program that did not note it.
        if not code(config, release).is_dir():
            return App(
                settings_module=config.settings_module, wsgi=config.wsgi, asgi=config.asgi, celery=config.celery_app,
                health_path=config.health_path,
            )  # fmt: skip
        kept = look(config, code(config, release), found)
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


def code(config: Config, release: str) -> Path:
    """Where the code of a release begins, as the host sees it."""
    directory = config.release_dir(release)
    found = image.of(directory)
    return directory / "src" if found is None else directory / image.ROOTFS / found.workdir.lstrip("/")


def root(config: Config, release: str) -> Path:
    """The same place, as its processes see it."""
    directory = config.release_dir(release)
    found = image.of(directory)
    return directory / "src" if found is None else Path(found.workdir)


def working(config: Config, release: str, app: App) -> Path:
    """The directory in which everything of the app starts, that of manage.py, as its processes see it."""
    return root(config, release) / app.directory


def path(config: Config, release: str) -> str:
    """Where its processes find programs."""
    directory = config.release_dir(release)
    found = image.of(directory)
    return f"{directory / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin" if found is None else found.path


def packages(config: Config, release: str) -> list[Path]:
    """The directories of what is installed for it, as the host sees them."""
    directory = config.release_dir(release)
    found = image.of(directory)
    if found is None:
        return list(directory.glob("venv/lib/python3*/site-packages"))
    return image.packages(found, directory / image.ROOTFS)


def python_path(config: Config, release: str, app: App) -> str:
    """PYTHONPATH of everything of the app: the operator's settings, the project, and what app_python_path adds."""
    top = working(config, release, app)
    places = [str(OVERLAY)] if config.settings_overlay else []
    return ":".join([*places, str(top), *(str(top / item) for item in app.python_path)])


def settings(config: Config, app: App) -> dict[str, str]:
    """Which settings module is loaded: with an overlay that one, which loads the app's own."""
    if config.settings_overlay:
        return {"DJANGO_SETTINGS_MODULE": OVERLAY_MODULE, "SLIPWAY_SETTINGS_MODULE": app.settings_module}
    return {"DJANGO_SETTINGS_MODULE": app.settings_module} if app.settings_module else {}


def check(config: Config, directory: Path, app: App) -> None:
    """Once it is built: refuse what could never start."""
    release, found = directory.name, image.of(directory)
    made_of = "the artifact" if found is None else "the image"
    django = _has(config, release, "django")
    if not app.settings_module and django:
        raise Refusal(
            f"No manage.py, wsgi.py or asgi.py of {made_of} names a settings module: set app_django_settings_module."
        )
    if "celery-worker" in config.processes and not app.celery:
        raise Refusal(
            f"This host is to run a Celery worker (it is in the group worker), and {made_of} has no Celery"
            " app: set app_celery_app to it, or to none, and run site.yml."
        )
    for process, package in STARTED_BY.items() if django and found is None else ():
        if process in config.processes and not _has(config, release, package):
            raise Refusal(
                f"This host is to run {process}, and {app.requirements} brings no {package}: add {package} to it, or to"
                " app_requirements_extra, and run site.yml."
            )
    if app.asgi:
        asgi_worker(config, release)
    else:
        _agree(found, app)


def _agree(found: image.Image | None, app: App) -> None:
    """Refuse an image whose command has Gunicorn call a WSGI application as an ASGI one."""
    if found is not None and found.worker_class and found.interface == "asgi":
        raise Refusal(
            f"The command of the image starts Gunicorn with {found.worker_class}, which serves ASGI, and app_wsgi is"
            f" {app.wsgi}: empty app_wsgi, or set app_asgi, and run site.yml."
        )


def _has(config: Config, release: str, package: str) -> bool:
    """Whether a package is installed for it."""
    return any((place / package / "__init__.py").is_file() for place in packages(config, release))


def asgi_worker(config: Config, release: str) -> str:
    """The class of gunicorn's workers for an ASGI application: the image's own, or by what is installed."""
    found = image.of(config.release_dir(release))
    if found is not None and found.worker_class:
        return found.worker_class
    for name, worker in ASGI_WORKERS:
        if _has(config, release, name):
            return worker
    where = "its requirements (or to app_requirements_extra)" if found is None else "the image"
    raise Refusal(
        f"{release} is to be run as ASGI, and has neither uvicorn-worker nor uvicorn: add uvicorn-worker to {where},"
        " or set app_wsgi."
    )


def launch(config: Config, release: str) -> dict[str, str]:
    """What the launcher of this generation's processes needs to know, as variables of its environment."""
    app = of(config, release)
    words = {
        "SLIPWAY_PATH": path(config, release),
        "SLIPWAY_DIRECTORY": str(working(config, release, app)),
        "SLIPWAY_PYTHONPATH": python_path(config, release, app),
        "SLIPWAY_APPLICATION": app.asgi or app.wsgi,
        "SLIPWAY_INTERFACE": "asgi" if app.asgi else "wsgi",
        "SLIPWAY_WORKER_CLASS": asgi_worker(config, release) if app.asgi else "gthread",
        "SLIPWAY_CELERY_APP": app.celery,
    }
    return {**words, **settings(config, app)}
