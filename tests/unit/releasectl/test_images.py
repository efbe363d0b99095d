"""Releases from images: which names are taken, what an image may say, and what its units are told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from releasectl import app as apps
from releasectl import build, dropin, image, image_release, reference, sandbox, sbom, store
from releasectl.config import Config
from releasectl.errors import Refusal, UsageError
from releasectl.hooks import Hooks
from releasectl.lifecycle import Lifecycle
from releasectl.names import RELEASE_ID, Generation
from tests.unit.releasectl.conftest import make_release

DIGEST = "sha256:" + "0123456789abcdef" * 4
SHA = "89abcdef" * 5
NAME = f"registry.example.com:5000/team/shop:{SHA}@{DIGEST}"


def said(**config: object) -> dict[str, object]:
    """What `podman image inspect` prints."""
    found = {
        "Env": ["PATH=/venv/bin:/usr/bin:/bin", "LANG=C.UTF-8", "RELEASE_ID=forged"],
        "WorkingDir": "/app/",
        "Cmd": ["gunicorn", "config.wsgi", "-b", "0.0.0.0:8000", "--workers=3"],
        "Labels": None,
    }
    return {
        "Config": {**found, **config}, "Architecture": image.architecture_here(), "Os": "linux",
        "Id": "ab" * 32, "Size": 1000, "RootFS": {"Layers": ["sha256:1"]},
    }  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of an image with all that its units call, by links as images have them."""
    made = tmp_path / "root"
    for place in ("venv/bin", "usr/bin", "app", "usr/local/bin"):
        (made / place).mkdir(parents=True)
    (made / "bin").symlink_to("usr/bin")
    for program in ("usr/bin/sh", "usr/bin/flock", "usr/local/bin/python3.11", "venv/bin/gunicorn", "venv/bin/celery"):
        (made / program).write_text("")
        (made / program).chmod(0o755)
    (made / "venv/bin/python").symlink_to("/usr/local/bin/python3.11")
    (made / "app/manage.py").write_text("")
    return made


# Names


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (NAME, "shop-89abcdef89ab-01234567"),
        (f"registry.example.com/shop@{DIGEST}", "shop-0123456789ab"),
        (f"localhost/a__b:v1.2..3@{DIGEST}", "a_b-v1.2.3-01234567"),
        (f"r.example/{'x' * 80}:{'y' * 100}@{DIGEST}", f"{'x' * 30}-{'y' * 20}-01234567"),
    ],
)
def test_a_release_is_called_by_what_its_image_is(text, release):
    found = reference.pinned(text)
    assert found.release_id() == release
    assert RELEASE_ID.fullmatch(release)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "shop:1", "team/shop:1", "registry.example.com/shop", "registry.example.com/shop:", "Reg.example.com/shop:1",
        "registry.example.com/Shop:1", "registry.example.com//shop:1", "registry.example.com/../shop:1",
        "https://registry.example.com/shop:1", "registry.example.com/shop:1 --tls-verify=false", "-x.example/shop:1",
        "registry.example.com/shop@sha256:abc", f"registry.example.com/shop@md5:{'0' * 64}", "a.example/b:1\n",
        f"a.example/{'b' * 400}:1", "registry.example.com:99999999/shop:1", "docker://a.example/b:1", "",
    ],
)  # fmt: skip
def test_what_does_not_name_one_image_in_one_registry_is_refused(text):
    with pytest.raises(UsageError):
        reference.parse(text)


def test_a_tag_alone_is_no_release():
    with pytest.raises(UsageError, match="has no digest"):
        reference.pinned(f"registry.example.com/shop:{SHA}")


@pytest.mark.parametrize(
    ("registries", "allowed"),
    [
        (["registry.example.com:5000"], True),
        (["registry.example.com:5000/team"], True),
        (["registry.example.com:5000/team/shop"], True),
        (["registry.example.com:5000/tea"], False),
        (["registry.example.com"], False),
        (["example.com:5000"], False),
        ([], False),
    ],
)
def test_only_what_is_on_the_list_may_be_pulled(registries, allowed):
    if allowed:
        reference.require_allowed(reference.pinned(NAME), registries)
    else:
        with pytest.raises(Refusal, match="release_image_registries"):
            reference.require_allowed(reference.pinned(NAME), registries)


def test_a_list_of_registries_has_to_be_one():
    assert not reference.check_places(["ghcr.io/acme", "10.0.0.1:5000"])
    for place in ("acme", "https://ghcr.io", "ghcr.io/Acme", 7):
        assert "is no registry" in reference.check_places([place])


# What an image says


def test_it_is_taken_at_its_word_but_for_where_it_listens_and_what_is_ours():
    found = image.understand(NAME, said(), ())
    assert found.command == ["config.wsgi", "--workers=3"]
    assert found.environment == {"PATH": "/venv/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    assert (found.workdir, found.path) == ("/app", "/venv/bin:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["gunicorn"], []),
        (["/venv/bin/gunicorn", "-b0.0.0.0:80", "-c", "conf.py"], ["-c", "conf.py"]),
        (["gunicorn", "--bind", "x", "--bind=y", "a.wsgi"], ["a.wsgi"]),
        (["tini", "--", "gunicorn", "a.asgi", "-k", "uvicorn.workers.UvicornWorker"],
         ["a.asgi", "-k", "uvicorn.workers.UvicornWorker"]),
    ],
)  # fmt: skip
def test_how_it_serves_is_its_own_to_say(words, left):
    assert image.web_command(NAME, words) == left


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "has no command"),
        (["python3"], "is not gunicorn"),
        (["sh", "-c", "gunicorn x"], "is not gunicorn"),
        (["tini"], "is not gunicorn"),
        (["gunicorn", "x", "--daemon"], "leave its service"),
        (["gunicorn", "x", "--certfile=/a"], "the edge speaks TLS"),
        (["gunicorn", "x\n[Service]"], "control character"),
        (["gunicorn", "a.wsgi", "b.wsgi"], "does not name one application"),
        (["gunicorn", "a:make(1)"], "does not name one application"),
    ],
)
def test_a_command_that_no_unit_can_run_is_refused_by_reason(words, why):
    with pytest.raises(Refusal, match=why) as refused:
        image.understand(NAME, said(Entrypoint=[], Cmd=words), ())
    assert "release_image_command" in str(refused.value)


def test_an_entrypoint_comes_before_the_command_and_the_operators_words_before_both():
    assert image.understand(NAME, said(Entrypoint=["gunicorn"], Cmd=["a"]), ()).command == ["a"]
    assert image.understand(NAME, said(Cmd=["sh"]), ("gunicorn", "b")).command == ["b"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"WorkingDir": "/app%n"}, "WORKDIR"),
        ({"WorkingDir": "/a/../b"}, "WORKDIR"),
        ({"WorkingDir": "app"}, "WORKDIR"),
        ({"Env": ["A B=c"]}, "no variable's name"),
        ({"Env": ["A=b\nc"]}, "control character"),
        ({"Env": 7}, "describe itself"),
    ],
)
def test_what_a_unit_cannot_carry_is_refused(changed, why):
    with pytest.raises(Refusal, match=why):
        image.understand(NAME, said(**changed), ())


def test_an_image_for_another_machine_is_refused():
    with pytest.raises(Refusal, match="is for linux/sparc"):
        image.understand(NAME, {**said(), "Architecture": "sparc"}, ())


@pytest.mark.parametrize(
    ("words", "application", "options", "worker", "interface"),
    [
        ([], "", [], "", "wsgi"),
        (["--preload", "a.wsgi"], "a.wsgi", ["--preload"], "", "wsgi"),
        (["-w", "4", "a.wsgi:app", "-t9", "--log-level", "info"], "a.wsgi:app",
         ["-w", "4", "-t9", "--log-level", "info"], "", "wsgi"),
        (["a.asgi"], "a.asgi", [], "", "asgi"),
        (["-k", "uvicorn_worker.UvicornWorker", "a.web:make()"], "a.web:make()",
         ["-k", "uvicorn_worker.UvicornWorker"], "uvicorn_worker.UvicornWorker", "asgi"),
        (["--worker-class=gevent", "a.asgi"], "a.asgi", ["--worker-class=gevent"], "gevent", "wsgi"),
    ],
)  # fmt: skip
def test_what_it_serves_is_told_apart_from_how(words, application, options, worker, interface):
    found = image.understand(NAME, said(Cmd=["gunicorn", *words]), ())
    assert (found.application, found.options) == (application, options)
    assert (found.worker_class, found.interface) == (worker, interface)


# What is inside


def test_links_inside_mean_what_they_mean_inside(root):
    (root / "away").symlink_to("/etc/hostname")
    (root / "up").symlink_to("../../../../../../etc/passwd")
    (root / "round").symlink_to("round")
    assert image.inside(root, "/venv/bin/python") == root / "usr/local/bin/python3.11"
    assert image.inside(root, "/bin/sh") == root / "usr/bin/sh"
    for name in ("away", "up", "round", "nothing"):
        assert image.inside(root, f"/{name}") is None
    assert image.inside(root, "/app/../..") == root


def test_everything_that_its_units_call_has_to_be_there(root):
    found = image.understand(NAME, said(), ())
    everything = ("gunicorn", "celery-worker", "celery-beat")
    assert image.settle(found, root, everything).python == "python"
    for missing, words in {
        "usr/bin/flock": "no flock", "venv/bin/celery": "no celery", "app/manage.py": "no manage.py",
        "venv/bin/gunicorn": "no gunicorn", "venv/bin/python": "no python", "usr/bin/sh": "no /bin/sh",
    }.items():  # fmt: skip
        (root / missing).unlink()
        with pytest.raises(Refusal, match=words):
            image.settle(found, root, everything)
        if missing in ("usr/bin/flock", "venv/bin/celery"):
            image.settle(found, root, ("gunicorn",))
        (root / missing).write_text("")
        (root / missing).chmod(0o755)


def test_a_working_directory_that_is_a_link_is_named_by_where_it_leads(root):
    (root / "srv").symlink_to("/app")
    found = image.settle(image.understand(NAME, said(WorkingDir="/srv"), ()), root, ())
    assert found.workdir == "/app"


# What is installed, by its own account


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ({"bomFormat": "CycloneDX", "components": [{"name": "Gun_icorn", "version": "1.0"}]}, ""),
        ({"spdxVersion": "SPDX-2.3", "packages": [{"name": "gun-icorn", "versionInfo": "1.0"}]}, ""),
        ({"bomFormat": "CycloneDX", "components": [{"name": "gun.icorn", "version": "0.9"}]}, "gun-icorn 1.0"),
        ({"packages": 7}, "neither CycloneDX nor SPDX"),
        ([], "neither CycloneDX nor SPDX"),
    ],
)
def test_an_sbom_lists_what_is_installed(config, root, listed, why):
    (root / "venv/lib/python3.12/site-packages/gun.icorn-1.0.dist-info").mkdir(parents=True)
    (root / "sbom.cdx.json").write_text(json.dumps(listed))
    found = image.understand(NAME, said(), ())
    config = replace(config, image_sbom="present")
    if not why:
        assert sbom.check(config, found, root) == "/sbom.cdx.json"
    else:
        with pytest.raises(Refusal, match=why):
            sbom.check(config, found, root)


def test_an_sbom_is_missed_only_where_it_is_required(config, root):
    found = image.understand(NAME, said(), ())
    assert sbom.check(replace(config, image_sbom="present"), found, root) is None
    with pytest.raises(Refusal, match="release_image_sbom"):
        sbom.check(replace(config, image_sbom="required"), found, root)


# Units and lifecycle


@pytest.fixture
def images(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Release `b` is from an image; that it is mounted is noted, not done."""
    unit = tmp_path / "celery-beat@.service"
    unit.write_text("[Service]\nReadWritePaths=/var/lib/app/beat -/srv/media\n")
    (tmp_path / "app-job-report@.service").write_text("[Service]\nReadWritePaths=/srv/media\n")
    config = replace(
        config, images=True, image_registries=("registry.example.com:5000",), dropins=tmp_path / "units",
        units=tmp_path, jobs=("app-job-report",), image_store=tmp_path / "none",
    )  # fmt: skip
    mounts: list[str] = []
    monkeypatch.setattr(dropin, "reload", lambda: mounts.append("reload"))
    monkeypatch.setattr(store, "require_mounted", lambda _config, release: mounts.append(release) or True)
    monkeypatch.setattr(config.__class__, "mounts", mounts, raising=False)
    return config


def from_image(config: Config, release: str, **changed: object) -> None:
    make_release(config, release, 9)
    image.keep(config.release_dir(release), replace(image.understand(NAME, said(), ()), **changed))


def test_a_generation_of_an_image_is_led_into_it_and_one_of_an_artifact_is_not(images):
    make_release(images, "a")
    from_image(images, "b", environment={"GREETING": '50% "off" \\ $HOME'}, command=["a.wsgi", "--name=$X%i"])
    assert not dropin.ready(images, Generation("a", 1))
    assert dropin.ready(images, Generation("b", 2))
    assert sorted(place.name for place in images.dropins.iterdir()) == [
        f"{process}@b.2.service.d" for process in ("app-job-report", "celery-beat", "celery-worker", "gunicorn")
    ]
    text = (images.dropins / "gunicorn@b.2.service.d/image.conf").read_text()
    assert f"RootDirectory={images.releases}/b/rootfs\n" in text
    assert 'Environment="GREETING=50%% \\"off\\" \\\\ $HOME"\n' in text
    assert f'ExecStart={images.launcher} gunicorn %i "--name=$$X%%i"\n' in text
    beat = (images.dropins / "celery-beat@b.2.service.d/image.conf").read_text()
    assert "BindPaths=-/var/lib/app/beat\nBindPaths=-/srv/media\n" in beat
    assert "ExecStart" not in beat
    job = (images.dropins / "app-job-report@b.2.service.d/image.conf").read_text()
    assert f"RootDirectory={images.releases}/b/rootfs\n" in job
    assert "BindPaths=-/srv/media\n" in job
    assert "BindPaths=" not in text.replace("BindReadOnlyPaths=", "")
    dropin.forget_all_but(images, {"a.1"})
    assert list(images.dropins.iterdir()) == []


def test_both_kinds_go_live_in_one_history(images, systemd, unhealthy):
    make_release(images, "a")
    from_image(images, "b")
    host = Lifecycle(images, systemd)
    for release in ("a", "b"):
        host.activate(release, "me")
    assert "b" in images.mounts
    host.switch("rollback", host.rollback_target(None), None, "me")
    assert host.live_release() == "a"
    assert not [place for place in images.dropins.glob("gunicorn@b.*") if "b.2" not in place.name]


def test_a_boot_puts_back_what_the_live_generation_stands_on(images, systemd, unhealthy):
    from_image(images, "b")
    host = Lifecycle(images, systemd)
    host.activate("b", "me")
    systemd.states.clear()
    images.mounts.clear()
    for place in images.dropins.glob("*/*"):
        place.unlink()
    host.reconcile("boot", boot=True)
    live = host.store.read().live.generation
    assert "b" in images.mounts
    assert (images.dropins / f"gunicorn@{live}.service.d/image.conf").is_file()


def test_reconcile_puts_back_what_was_taken_from_what_runs_and_from_what_one_could_go_back_to(
    images, systemd, unhealthy
):  # fmt: skip
    from_image(images, "b")
    from_image(images, "c")
    host = Lifecycle(images, systemd)
    host.activate("b", "me")
    place = images.dropins / "gunicorn@b.1.service.d/image.conf"
    place.unlink()
    images.mounts.clear()
    done = host.reconcile("me")
    assert place.is_file()
    assert "what b.1 has of its image was put back" in done
    assert "the image of c was mounted again" in done
    images.mounts.clear()
    host.reconcile("me", heal=False)
    assert "c" not in images.mounts


def test_an_image_that_cannot_be_mounted_refuses_its_own_start_and_no_way_back(
    images, systemd, unhealthy, monkeypatch
):  # fmt: skip
    make_release(images, "a")
    from_image(images, "b")
    host = Lifecycle(images, systemd)
    host.activate("a", "me")
    host.activate("b", "me")

    def gone(_config: Config, release: str) -> bool:
        if release == "b":
            raise Refusal("its image is gone")
        return False

    monkeypatch.setattr(store, "require_mounted", gone)
    host.reconcile("me", heal=False)
    host.switch("rollback", "a", None, "me")
    assert host.live_release() == "a"
    with pytest.raises(Refusal, match="its image is gone"):
        host.activate("b", "me")
    assert host.live_release() == "a"


def test_commands_of_it_run_inside_and_what_a_build_leaves_in_its_cache_leads_nowhere(images, tmp_path):
    from_image(images, "b")
    make_release(images, "a")
    for properties in (
        sandbox.build(images, images.release_dir("b"), [images.release_dir("b") / "static"]),
        sandbox.app(images, images.release_dir("b"), tmp_path / "env"),
    ):
        assert f"RootDirectory={images.releases}/b/rootfs" in properties
        assert "WorkingDirectory=/app" in properties
    assert sandbox.python(images, "b")[-1] == "python"
    assert sandbox.environment(images, "b")["RELEASE_ID"] == "b"
    assert apps.path(images, "b") == "/venv/bin:/usr/bin:/bin"
    cache = tmp_path / "cache"
    cache.mkdir()
    image.keep(cache, image.of(images.release_dir("b")))
    assert not [item for item in sandbox.build(images, cache, [cache], cache) if item.startswith("RootDirectory")]


def inside(config: Config, release: str = "b") -> Path:
    """Where the code of a release from an image lies on the host."""
    place = config.release_dir(release) / "rootfs/app"
    (place / "shop").mkdir(parents=True)
    (place / "shop/wsgi.py").write_text('"DJANGO_SETTINGS_MODULE", "shop.live"\napplication = 1\n')
    (place / "shop/celery.py").write_text("app = Celery()\n")
    (place / "shop/urls.py").write_text('path("healthz", ok)\n')
    (place / "shop/away.py").symlink_to("/etc/passwd")
    return place


def test_how_it_is_run_is_said_by_the_variables_then_by_itself_and_then_by_its_code(images):
    silent = replace(images, settings_module="", wsgi="", celery_app="", health_path="", directory="web")
    from_image(silent, "b", command=[])
    place = inside(silent)
    found = apps.look(silent, place, image.of(silent.release_dir("b")))
    assert (found.directory, found.settings_module, found.wsgi, found.celery, found.health_path) == (
        ".", "shop.live", "shop.wsgi:application", "shop", "/healthz",
    )  # fmt: skip
    assert (found.requirements, set(found.guessed)) == (
        "", {"django_settings_module", "wsgi", "celery_app", "health_path"},
    )  # fmt: skip
    own = replace(
        image.understand(NAME, said(), ()), command=["own.asgi", "-w", "2"],
        environment={"DJANGO_SETTINGS_MODULE": "own.settings"},
    )  # fmt: skip
    found = apps.look(silent, place, own)
    assert (found.settings_module, found.wsgi, found.asgi) == ("own.settings", "", "own.asgi")
    found = apps.look(images, place, own)
    assert (found.settings_module, found.wsgi, found.asgi) == ("config.settings", "config.wsgi:application", "")


def test_the_launcher_is_told_what_is_true_inside(images):
    config = replace(images, wsgi="", python_path=("lib",), settings_overlay=True)
    from_image(config, "b", command=["own.asgi", "--workers", "2"])
    place = inside(config)
    packages = config.release_dir("b") / "rootfs/venv/lib/python3.12/site-packages/uvicorn"
    with pytest.raises(Refusal, match="neither uvicorn-worker nor uvicorn"):
        apps.check(config, config.release_dir("b"), apps.look(config, place, image.of(config.release_dir("b"))))
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    program = config.release_dir("b") / "rootfs/venv/bin/gunicorn"
    program.parent.mkdir()
    program.touch(0o755)
    told = apps.launch(config, "b")
    assert (told["SLIPWAY_PATH"], told["SLIPWAY_DIRECTORY"]) == ("/venv/bin:/usr/bin:/bin", "/app")
    assert told["SLIPWAY_PYTHONPATH"] == "/etc/slipway/overlay:/app:/app/lib"
    assert (told["SLIPWAY_APPLICATION"], told["SLIPWAY_INTERFACE"]) == ("own.asgi", "asgi")
    assert told["SLIPWAY_WORKER_CLASS"] == "uvicorn.workers.UvicornWorker"
    assert {apps.OVERLAY, config.serving, config.inside} <= set(store.shown(config, "b"))


def test_gunicorn_is_not_to_call_one_kind_of_application_as_the_other(images):
    from_image(images, "b", command=["own.asgi", "-k", "uvicorn_worker.UvicornWorker"])
    place, found = inside(images), image.of(images.release_dir("b"))
    with pytest.raises(Refusal, match="UvicornWorker, which serves ASGI, and app_wsgi is"):
        apps.check(images, images.release_dir("b"), apps.look(images, place, found))
    asked = replace(images, wsgi="", asgi="config.asgi:application")
    apps.check(asked, images.release_dir("b"), apps.look(asked, place, found))


def test_what_fails_on_the_way_leaves_nothing(images, monkeypatch):
    monkeypatch.setattr(store, "manifest", lambda *_: (DIGEST, {"layers": [{"digest": DIGEST, "size": 7}]}))
    monkeypatch.setattr(store, "pull", lambda *_: None)
    monkeypatch.setattr(store, "inspect", lambda *_: said())
    hooks = Hooks(images, "prepare", "c", None, lambda _line: None)
    with pytest.raises(Refusal, match="no /bin/sh"):
        image_release.prepare(images, "c", reference.pinned(NAME), "me", lambda _line: None, hooks)
    assert list(images.releases.iterdir()) == []


def test_layers_over_the_bound_and_images_where_none_are_wanted_are_refused(images, monkeypatch):
    monkeypatch.setattr(store, "manifest", lambda *_: (DIGEST, {"layers": [{"digest": DIGEST, "size": 2**33}]}))
    hooks = Hooks(images, "prepare", "c", None, lambda _line: None)
    for config, words in ((images, "release_image_max_bytes"), (replace(images, images=False), "release_images: true")):
        with pytest.raises(Refusal, match=words):
            image_release.prepare(config, "c", reference.pinned(NAME), "me", lambda _line: None, hooks)
    assert build.prepared(images) == {}


def test_layers_that_are_here_do_not_come_again(images):
    listed = {"layers": [{"digest": "sha256:1", "size": 10}, {"digest": "sha256:2", "size": 5}]}
    assert store.missing(images, listed) == 15
    (images.image_store / "overlay-layers").mkdir(parents=True)
    (images.image_store / "overlay-layers/layers.json").write_text('[{"compressed-diff-digest": "sha256:1"}]')
    assert store.missing(images, listed) == 5
