"""How an app is run: what its variables say, what its code says, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from releasectl import app as apps
from releasectl import build, guess, health, hostctl, requirements, static
from releasectl.config import Config
from releasectl.errors import Refusal
from releasectl.lifecycle import Lifecycle
from releasectl.names import Generation

ROOT = Path(__file__).resolve().parents[3]
WSGI = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\napplication = 1\n'
MANAGE = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.dev")\n'
LOCKED = "django==5.2 \\\n    --hash=sha256:00\n"


def put(top: Path, **files: str) -> Path:
    """Files by their path, with two underscores for each slash and one dot before the last word."""
    for name, text in files.items():
        path = top / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return put(
        tmp_path / "made",
        web__manage_DOT_py=MANAGE,
        web__shop__wsgi_DOT_py=WSGI,
        web__shop__asgi_DOT_py=WSGI,
        web__shop__celery_DOT_py="app = Celery('shop')\n",
        web__shop__urls_DOT_py='path("health/", ok)\n',
        requirements_DOT_txt=LOCKED,
    )


def test_what_is_not_said_is_found_in_the_code_and_told(project: Path) -> None:
    found = apps.look(Config(), project)
    assert (found.directory, found.settings_module, found.wsgi, found.asgi, found.celery) == (
        "web", "shop.settings", "shop.wsgi:application", "", "shop",
    )  # fmt: skip
    assert (found.requirements, found.health_path) == ("requirements.txt", "/health/")
    assert found.guessed["wsgi"] == "shop.wsgi:application (from shop/wsgi.py)"
    assert set(found.guessed) == {
        "directory", "django_settings_module", "wsgi", "celery_app", "requirements", "health_path",
    }  # fmt: skip


def test_what_is_said_is_not_guessed(project: Path) -> None:
    config = Config(directory="web", settings_module="shop.live", asgi="shop.asgi:application", health_path="/up")
    found = apps.look(config, project)
    assert (found.settings_module, found.asgi, found.wsgi, found.health_path) == (
        "shop.live", "shop.asgi:application", "", "/up",
    )  # fmt: skip
    assert set(found.guessed) == {"celery_app", "requirements"}


def test_what_lies_in_src_beside_manage_is_imported_from_there(tmp_path: Path) -> None:
    put(tmp_path, manage_DOT_py="", src__shop____init___DOT_py="", src__shop__asgi_DOT_py="async def application(): 1")
    (tmp_path / "src/shop/__init__.py").touch()
    found = apps.look(Config(), tmp_path)
    assert (found.python_path, found.asgi) == (("src",), "shop.asgi:application")
    assert found.guessed["python_path"] == "src (packages are there)"


def test_a_project_that_is_a_package_is_imported_from_above(tmp_path: Path) -> None:
    put(
        tmp_path,
        site__manage_DOT_py=MANAGE.replace("shop.settings", "site.settings"),
        site__config__wsgi_DOT_py=WSGI.replace("shop.settings", "site.settings"),
        site__jobs__celery_DOT_py="app = Celery('site')\n",
    )
    found = apps.look(Config(), tmp_path)
    assert (found.directory, found.python_path) == ("site", ("..",))
    assert found.guessed["python_path"] == ".. (site.settings is seen from there)"
    # As its settings name them, and not by a second name.
    assert (found.wsgi, found.celery) == ("site.config.wsgi:application", "site.jobs")
    said = apps.look(Config(python_path=("lib",)), tmp_path)
    assert (said.python_path, said.wsgi) == (("lib",), "config.wsgi:application")


def test_a_package_of_the_projects_name_beside_manage_is_imported_from_there(tmp_path: Path) -> None:
    put(
        tmp_path,
        shop__manage_DOT_py=MANAGE, shop__shop__settings_DOT_py="", shop__shop__wsgi_DOT_py=WSGI,
    )  # fmt: skip
    found = apps.look(Config(), tmp_path)
    assert (found.directory, found.python_path, found.wsgi) == ("shop", (), "shop.wsgi:application")


def test_two_projects_are_no_guess(project: Path) -> None:
    put(project, other__manage_DOT_py="")
    with pytest.raises(Refusal, match=r"more than one manage\.py, in other, web: set app_directory"):
        apps.look(Config(), project)
    assert apps.look(Config(directory="web"), project).directory == "web"


@pytest.mark.parametrize("directory", ["nowhere", ".."])
def test_a_directory_that_is_not_the_artifacts_is_refused(project: Path, directory: str) -> None:
    with pytest.raises(Refusal, match="correct app_directory"):
        apps.look(Config(directory=directory), project)


@pytest.fixture
def made(config: Config, project: Path) -> Config:
    """A release ``a`` of it, as `prepare` leaves one, with nothing said."""
    config = dataclasses.replace(
        config, settings_module="", wsgi="", celery_app="", requirements="", health_path="", settings_overlay=False
    )
    directory = config.release_dir("a")
    directory.mkdir()
    project.rename(directory / "src")
    record = {"id": "a", "app": apps.look(config, directory / "src").public()}
    (directory / "release.json").write_text(json.dumps(record))
    return config


def test_the_launcher_is_told_by_the_record_and_by_what_is_said_since(made: Config) -> None:
    root = made.release_dir("a") / "src" / "web"
    told = apps.launch(made, "a")
    assert told == {
        "SLIPWAY_PATH": f"{made.release_dir('a')}/venv/bin:/usr/local/bin:/usr/bin:/bin",
        "SLIPWAY_DIRECTORY": str(root),
        "SLIPWAY_PYTHONPATH": str(root),
        "SLIPWAY_APPLICATION": "shop.wsgi:application",
        "SLIPWAY_INTERFACE": "wsgi",
        "SLIPWAY_WORKER_CLASS": "gthread",
        "SLIPWAY_CELERY_APP": "shop",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
    }
    said = dataclasses.replace(made, wsgi="shop.other:app", settings_overlay=True, python_path=("..",))
    told = apps.launch(said, "a")
    assert told["SLIPWAY_APPLICATION"] == "shop.other:app"
    assert told["SLIPWAY_PYTHONPATH"] == f"/etc/slipway/overlay:{root}:{root}/.."
    assert (told["DJANGO_SETTINGS_MODULE"], told["SLIPWAY_SETTINGS_MODULE"]) == ("slipway_settings", "shop.settings")


def test_a_release_of_before_is_looked_at_again(made: Config) -> None:
    (made.release_dir("a") / "release.json").write_text('{"id": "a"}')
    assert apps.of(made, "a").wsgi == "shop.wsgi:application"


def test_what_is_said_of_the_app_makes_a_restart_due(host: Lifecycle, config: Config) -> None:
    other = Lifecycle(dataclasses.replace(config, asgi="shop.asgi:application"), host.systemd)
    assert other.setup() != host.setup()


def test_an_asgi_app_is_served_by_the_worker_that_it_has(made: Config) -> None:
    said = dataclasses.replace(made, asgi="shop.asgi:application")
    packages = made.release_dir("a") / "venv/lib/python3.11/site-packages"
    with pytest.raises(Refusal, match="neither uvicorn-worker nor uvicorn"):
        apps.launch(said, "a")
    (packages / "uvicorn").mkdir(parents=True)
    (packages / "uvicorn/__init__.py").touch()
    assert apps.launch(said, "a")["SLIPWAY_WORKER_CLASS"] == "uvicorn.workers.UvicornWorker"
    (packages / "uvicorn_worker").mkdir()
    (packages / "uvicorn_worker/__init__.py").touch()
    told = apps.launch(said, "a")
    assert (told["SLIPWAY_WORKER_CLASS"], told["SLIPWAY_INTERFACE"]) == ("uvicorn_worker.UvicornWorker", "asgi")


def test_a_worker_without_celery_is_refused_before_it_could_fail(made: Config) -> None:
    app = dataclasses.replace(apps.of(made, "a"), celery="")
    with pytest.raises(Refusal, match="no Celery app: set app_celery_app"):
        apps.check(made, made.release_dir("a"), app)
    apps.check(dataclasses.replace(made, processes=("gunicorn",)), made.release_dir("a"), app)


def test_what_starts_it_is_installed_or_asked_for(made: Config) -> None:
    packages = made.release_dir("a") / "venv/lib/python3.11/site-packages"
    app = apps.of(made, "a")
    for name, wanted in (("django", "gunicorn"), ("gunicorn", "celery"), ("celery", "")):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").touch()
        if wanted:
            with pytest.raises(
                Refusal, match=f"requirements.txt brings no {wanted}: add {wanted} to it, or to app_req"
            ):
                apps.check(made, made.release_dir("a"), app)
    apps.check(made, made.release_dir("a"), app)


# Requirements


def test_requirements_without_hashes_are_refused_unless_that_is_said(tmp_path: Path) -> None:
    put(tmp_path, requirements_DOT_txt="django\n")
    with pytest.raises(Refusal, match=r"have no hashes.*app_requirements_unhashed"):
        requirements.check(Config(), tmp_path, "requirements.txt")
    assert requirements.check(Config(requirements_unhashed=True), tmp_path, "requirements.txt") == "listed"


@pytest.mark.parametrize("name", ["", "missing.txt"])
def test_requirements_that_are_not_there_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match=f"has no {name or 'file of requirements'}"):
        requirements.check(Config(), tmp_path, name)


def test_more_requirements_have_hashes_where_the_others_have(tmp_path: Path) -> None:
    put(tmp_path, requirements_DOT_lock=LOCKED)
    with pytest.raises(Refusal, match="'gunicorn==23' of app_requirements_extra has none"):
        requirements.check(Config(requirements_extra=("gunicorn==23",)), tmp_path, "requirements.lock")
    given = Config(requirements_extra=("gunicorn==23 --hash=sha256:00",))
    assert requirements.check(given, tmp_path, "requirements.lock") == "hashed"
    with pytest.raises(Refusal, match="app_requirements_optional is for"):
        requirements.check(Config(requirements_optional=("s3",)), tmp_path, "requirements.lock")


def test_a_lock_comes_before_a_list_and_a_nearer_one_before_a_farther(tmp_path: Path) -> None:
    put(tmp_path, web__pyproject_DOT_toml="[project]\n", uv_DOT_lock="", requirements_DOT_txt="django\n")
    assert guess.requirements(tmp_path / "web", tmp_path) == ("web/pyproject.toml", "it is there")
    put(tmp_path, requirements_DOT_lock=LOCKED)
    assert guess.requirements(tmp_path / "web", tmp_path) == ("requirements.lock", "locked with hashes")


def test_a_project_file_that_is_for_tools_lists_nothing(tmp_path: Path) -> None:
    put(tmp_path, pyproject_DOT_toml="[tool.ruff]\n")
    assert guess.requirements(tmp_path, tmp_path) is None


# Static files


def release_with(config: Config, manifest: bool) -> Path:
    directory = config.release_dir("a")
    (directory / "src/web").mkdir(parents=True)
    (directory / "static").mkdir()
    if manifest:
        (directory / "static/staticfiles.json").touch()
    return directory


def test_an_app_with_a_static_root_of_its_own_finds_the_releases_there(config: Config) -> None:
    directory = release_with(config, manifest=True)
    static.lead(directory, f"{directory}/src/web/assets")
    assert (directory / "src/web/assets").resolve() == directory / "static"
    static.lead(directory, f"{directory}/static")


@pytest.mark.parametrize("root", ["/srv/static", "", "assets", "{}/src/../../outside"])
def test_a_manifest_that_the_app_would_not_find_is_refused(config: Config, root: str) -> None:
    directory = release_with(config, manifest=True)
    with pytest.raises(Refusal, match="app_settings_overlay"):
        static.lead(directory, root.format(directory))


def test_without_a_manifest_it_does_not_matter(config: Config) -> None:
    static.lead(release_with(config, manifest=False), "/srv/static")


def test_what_is_no_django_says_nothing_of_it(config: Config) -> None:
    directory = release_with(config, manifest=True)
    collected, root = static.said_root(["collected 3 files"])
    assert collected
    static.lead(directory, root)
    assert list((directory / "src/web").iterdir()) == []


@pytest.mark.parametrize(("more", "told"), [('"django.contrib.staticfiles"', True), ("", False)])
def test_static_files_go_where_they_belong_whatever_the_settings_say(
    tmp_path: Path, django: str, more: str, told: bool
) -> None:
    put(
        tmp_path,
        conf_DOT_py=f'SECRET_KEY = "x"\nSTATIC_URL = "/s/"\nSTATIC_ROOT = "/srv/elsewhere"\nINSTALLED_APPS = [{more}]\n'
        f'STATICFILES_DIRS = ["{tmp_path}/front"]\n',
        front__site_DOT_css="body {}",
    )
    words = json.dumps({"mode": "describe", "manage": ["collectstatic", "--noinput", "--verbosity", "0"]})
    done = subprocess.run(
        [django, str(ROOT / "roles/release/files/inside/slipway_migrations.py"), words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"DJANGO_SETTINGS_MODULE": "conf", "STATIC_ROOT": str(tmp_path / "static")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("@slipway ")]
    assert static.said_root(lines) == (told, "/srv/elsewhere" if told else "")
    assert (tmp_path / "static/site.css").exists() is told


# Health


@pytest.mark.parametrize(("target", "status", "well"), [
    ("/up", 200, True), ("/up", 302, False), ("", 302, True), ("", 404, True), ("", 500, False), ("", 503, False),
])  # fmt: skip
def test_without_a_path_an_answer_below_500_is_all_that_is_known(target: str, status: int, well: bool) -> None:
    assert health.well(target, status) is well


def test_what_was_taken_for_granted_is_said() -> None:
    release = build.Release(
        "a", "0", "now", "me", 1, 1, None,
        app={"guessed": {"wsgi": "x:y (from x.py)"}, "health_path": ""},
        requirements={"kind": "listed", "installed": 7},
    )  # fmt: skip
    said = build.sentence(release)
    assert "Guessed: app_wsgi is x:y (from x.py)." in said
    assert "any answer of / below 500" in said
    assert "7 requirements were installed without hashes" in said


# Processes of its own


@pytest.fixture
def huey(config: Config, host: Lifecycle) -> Lifecycle:
    """A host that runs a worker, huey, and a single, bot, beside the others."""
    return Lifecycle(
        dataclasses.replace(
            config,
            processes=("gunicorn", "celery-worker", "celery-beat", "app-huey", "app-bot"),
            workers=("celery-worker", "app-huey"),
            singles=("celery-beat", "app-bot"),
        ),
        host.systemd,
    )


def test_own_workers_take_over_before_the_switch_and_singles_after(huey: Lifecycle) -> None:
    huey.activate("a", "me")
    huey.systemd.calls.clear()
    huey.activate("b", "me")
    calls = huey.systemd.calls
    order = [calls.index(call) for call in (
        ("start", "gunicorn@b.2.service"), ("start", "app-huey@b.2.service"), ("stop", "app-huey@a.1.service"),
        ("stop", "gunicorn@a.1.service"), ("stop", "app-bot@a.1.service"), ("start", "app-bot@b.2.service"),
    )]  # fmt: skip
    assert order == sorted(order)
    assert huey.systemd.running("app-huey") == ["app-huey@b.2.service"]
    assert huey.systemd.running("app-bot") == ["app-bot@b.2.service"]


def test_one_that_does_not_start_is_a_refusal_and_the_old_one_comes_back(huey: Lifecycle) -> None:
    huey.activate("a", "me")
    huey.systemd.broken.add("app-huey@b")
    with pytest.raises(Refusal, match="The process app-huey of b did not start"):
        huey.activate("b", "me")
    assert huey.live_release() == "a"
    assert huey.systemd.running("app-huey") == ["app-huey@a.1.service"]


def test_a_job_is_left_to_its_end(huey: Lifecycle) -> None:
    huey.activate("a", "me")
    huey.systemd.states["app-job-report@a.1.service"] = "activating"
    huey.activate("b", "me")
    assert huey.systemd.running("app-job-report") == ["app-job-report@a.1.service"]
    huey.activate("c", "me")
    huey.activate("d", "me")
    assert "a" not in huey.prune(1)
    assert not huey.reconcile("me")


def test_a_timer_runs_its_job_in_the_live_generation(huey: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostctl, "Systemd", lambda: huey.systemd)
    assert hostctl.tick(huey.config, "report") == 0
    assert not huey.systemd.running("app-job-report")
    huey.activate("a", "me")
    hostctl.tick(huey.config, "report")
    assert huey.systemd.running("app-job-report") == ["app-job-report@a.1.service"]
    huey.systemd.broken.add("app-job-report")
    with pytest.raises(Refusal, match=r"app-job-report@a\.1\.service failed"):
        hostctl.tick(huey.config, "report")
    huey.systemd.states["app.service"] = "inactive"
    assert hostctl.tick(huey.config, "report") == 0


def test_a_generation_of_ours_is_one_name(config: Config) -> None:
    assert str(Generation.parse("b.2")) == "b.2"
    assert config.workers == ("celery-worker",)


# What gunicorn serves


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The program, told which application to serve."""

    def load(interface: str, application: object) -> object:
        monkeypatch.setenv("RELEASE_ID", "a")
        monkeypatch.setenv("SLIPWAY_INTERFACE", interface)
        monkeypatch.setenv("SLIPWAY_APPLICATION", "json:dumps")
        path = ROOT / "roles/services/files/slipway_app.py"
        spec = importlib.util.spec_from_file_location("slipway_app", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, interface)(application)

    return load


@pytest.mark.parametrize(("own", "told"), [([], [("X-Release", "a")]), ([("x-release", "z")], [("x-release", "z")])])
def test_an_answer_names_its_release(serve, own, told) -> None:  # type: ignore[no-untyped-def]
    def application(_environ, start):  # type: ignore[no-untyped-def]
        start("200 OK", own)
        return [b"hi"]

    seen: list[object] = []
    assert serve("wsgi", application)({}, lambda status, headers: seen.append((status, headers))) == [b"hi"]
    assert seen == [("200 OK", told)]


@pytest.mark.parametrize(
    ("own", "told"), [([], [(b"x-release", b"a")]), ([(b"x-release", b"z")], [(b"x-release", b"z")])]
)
def test_an_asynchronous_answer_does_too(serve, own, told) -> None:  # type: ignore[no-untyped-def]
    async def application(_scope, _receive, send):  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b"hi"})

    seen: list[object] = []

    async def send(message: object) -> None:
        seen.append(message)

    asyncio.run(serve("asgi", application)({"type": "http"}, None, send))
    assert seen == [
        {"type": "http.response.start", "status": 200, "headers": told}, {"type": "http.response.body", "body": b"hi"},
    ]  # fmt: skip
