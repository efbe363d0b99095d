"""Releases from images, from a real registry: pulled by digest, run by the same units, and mixed with artifacts."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab import cargo as packing
from lab import oci
from molecule.conftest import LAB
from tests.keeper import DIRECTORY, Keeper
from tests.registry import USER, LabRegistry

pytestmark = pytest.mark.full  # about four minutes

CONVERGE = "molecule/release/converge.yml"
KEY, COMING, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
KEYS = "/etc/slipway/image-signature.pub"
CREDENTIALS = "/etc/slipway/registry-auth.json"
REPOSITORY = "shop/bookshop"
SBOM = "sbom.cdx.json"
ASGI = """
from django.core.asgi import get_asgi_application

django = get_asgi_application()


async def application(scope, receive, send):
    if scope["type"] != "http" or scope["path"] != "/interface":
        return await django(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"http, asynchronously"})
"""
PODMAN = "podman --storage-driver overlay --root /var/lib/containers/slipway --runroot /run/containers/slipway"


@pytest.fixture(scope="module")
def registry(lab: dict[str, Any]) -> Iterator[LabRegistry]:
    made = LabRegistry(lab)
    yield made
    made.remove()


def postgresql_client(container: str) -> bytes:
    """pg_dump and its libraries, as a host has them, for a layer."""
    script = """
    set -e; dump=$(ls /usr/lib/postgresql/*/bin/pg_dump)
    libraries=$(ldd $dump | grep -o '/[^ ]*' | while read -r one; do
      echo "$(realpath "$(dirname "$one")")/$(basename "$one")"; done)
    tar --create --dereference --transform 's,usr/lib/postgresql/[0-9]*/bin,usr/local/bin,' $dump $libraries
    """
    done = subprocess.run(["docker", "exec", container, "sh", "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Shop:
    """Makes images of the bookshop, pushes them, and has them deployed."""

    def __init__(self, lab: dict[str, Any], registry: LabRegistry, ops: Any) -> None:
        self.registry, self.ops = registry, ops
        self.below = [oci.base(lab["image"]), oci.requirements()]
        self.run = secrets.token_hex(8)  # hosts that stand may know the images of another run

    def apply(self, **variables: Any) -> None:
        run = self.ops.playbook(CONVERGE, "-e", json.dumps({**self.registry.variables(), **variables}))
        assert run.code == 0, run.output

    def image(self, cargo: dict[str, Any], **files: str) -> oci.Image:
        return oci.Image(
            [*self.below, oci.app(Path(cargo["artifact"]), **{"run": self.run, **files})], revision=cargo["revision"]
        )

    def push(self, tag: str, image: oci.Image) -> str:
        digest: str = self.registry.client.push(REPOSITORY, tag, image)
        return digest

    def sign(self, digest: str, key: Any = KEY, name: str = "", about: str = "", changed: bool = False) -> None:
        """As `cosign sign` does, or with something wrong; beside another's signature, which does no harm."""
        content = oci.payload(name or self.name(""), about or digest)
        signature = oci.signed(key, content)
        sent = oci.Blob(content.replace(b"null", b"true") if changed else content)
        self.registry.client.sign(REPOSITORY, digest, (sent, oci.signed(OTHER, b"")), (sent, signature))

    def deploy(self, which: str) -> Any:
        # What was live before all this is to be there after it.
        words = ["-e", f"release_image={self.name(which)}", "-e", "release_keep=20"]
        return self.ops.playbook("playbooks/deploy.yml", *words)

    def name(self, which: str) -> str:
        return f"{self.registry.host}/{REPOSITORY}{which}"


@pytest.fixture(scope="module")
def shop(lab: dict[str, Any], registry: LabRegistry, ops: Any, edge: Any, cargo: dict[str, Any]) -> Iterator[Shop]:
    before = ops.have_live(edge, cargo["good-1"])
    made = Shop(lab, registry, ops)
    made.apply()
    yield made
    if ops.live() != before:
        assert ops.rollback(before).code == 0
    run = ops.playbook(CONVERGE)
    assert run.code == 0, run.output


@pytest.fixture(scope="module")
def before(shop: Shop, ops: Any) -> str:
    return str(ops.live())


@pytest.fixture(scope="module")
def first(before: str, shop: Shop, cargo: dict[str, Any]) -> dict[str, str]:
    """Deployed by its tag, on a host that knew none of its layers."""
    commit = cargo["good-1"]["revision"]
    digest = shop.push(commit, shop.image(cargo["good-1"]))
    run = shop.deploy(f":{commit}")
    assert run.code == 0, run.output
    return {"id": f"bookshop-{commit[:12]}-{digest[7:15]}", "digest": digest, "commit": commit, "closing": run.closing}


@pytest.fixture(scope="module")
def second(first: dict[str, str], shop: Shop, cargo: dict[str, Any]) -> dict[str, Any]:
    """Deployed by its digest, with another top layer alone."""
    sent = len(shop.registry.sent(REPOSITORY))
    image = shop.image(cargo["good-2"])
    digest = shop.push(cargo["good-2"]["revision"], image)
    run = shop.deploy(f"@{digest}")
    assert run.code == 0, run.output
    return {"id": f"bookshop-{digest[7:19]}", "image": image, "sent": shop.registry.sent(REPOSITORY)[sent:]}


def release(ops: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in ops.status()["releases"] if one["id"] == name)
    return found


def test_a_tag_is_pinned_by_its_digest_and_told_everywhere(
    first: dict[str, str], before: str, ops: Any, edge: Any, shop: Shop, app1: Any
) -> None:
    assert first["closing"].startswith(f"{first['id']} is live on app1 in place of {before}")
    edge.wait(10, release=first["id"])
    shown = release(ops, first["id"])
    assert shown["image"] == shop.name(f":{first['commit']}@{first['digest']}")
    assert shown["revision"] == first["commit"]
    record = json.loads(app1.file(f"/opt/app/releases/{first['id']}/release.json").content_string)
    assert (record["image"], f"sha256:{record['sha256']}") == (shown["image"], first["digest"])
    event = next(
        e for e in ops.releasectl("history")["events"] if e["verb"] == "activate" and e["release"] == first["id"]
    )
    assert event["image"] == shown["image"]


def test_every_process_of_it_runs_inside_as_the_image_says(
    first: dict[str, str], ops: Any, app1: Any, edge: Any
) -> None:
    generation = ops.status()["live"]["generation"]
    for process in ops.status()["processes"]:
        unit = f"{process}@{generation}.service"
        pid = app1.check_output(f"systemctl show --property=MainPID --value {unit}")
        assert pid != "0", unit
        assert app1.check_output(f"readlink /proc/{pid}/cwd") == "/app", unit
        assert app1.run(f"ls /proc/{pid}/root/opt/app/incoming").rc != 0, unit
        assert app1.check_output(f"stat -c %U /proc/{pid}") == "app", unit
        sandbox = app1.check_output(f"systemctl show --property=ProtectSystem,NoNewPrivileges,PrivateUsers {unit}")
        assert set(sandbox.splitlines()) == {"ProtectSystem=strict", "NoNewPrivileges=yes", "PrivateUsers=yes"}
    main = app1.check_output(f"systemctl show --property=MainPID --value gunicorn@{generation}.service")
    words = app1.check_output(f"tr '\\0' ' ' </proc/{main}/cmdline")
    # The image's own number of workers is the last word; where it listens is not the image's to say.
    assert words.split("--workers ")[-1].startswith("2 ")
    assert words.strip().endswith("slipway_app:application")
    assert "0.0.0.0" not in words  # noqa: S104
    assert app1.run("ss -ltn | grep -q ':8000 '").rc != 0
    assert "System check identified no issues" in app1.run("app-manage check 2>&1").stdout


def test_its_static_files_are_published_and_the_page_is_whole(first: dict[str, str], edge: Any) -> None:
    page = edge.get("/")
    assert page.status == 200
    path = next(
        word for word in page.text.replace("'", '"').split('"') if word.startswith("/static/") and ".css" in word
    )
    assert edge.get(path).status == 200


def test_nobody_but_the_pull_reads_the_credentials(first: dict[str, str], shop: Shop, app1: Any) -> None:
    kept = app1.file(CREDENTIALS)
    assert (kept.user, kept.mode) == ("root", 0o600)
    for account in ("app", "app-build", "deployer"):
        assert app1.run(f"setpriv --reuid {account} --clear-groups cat {CREDENTIALS}").rc != 0
    told = app1.check_output("journalctl --no-pager -o cat; cat /var/log/app/releases/* /opt/app/releases/*/*.json")
    assert shop.registry.password not in told
    assert base64.b64encode(f"{USER}:{shop.registry.password}".encode()).decode() not in told


def test_only_the_changed_layer_moves(second: dict[str, Any], edge: Any) -> None:
    edge.wait(10, release=second["id"])
    top, config = second["image"].layers[-1].digest, second["image"].config().digest
    assert set(second["sent"]) == {top, config}


def test_one_goes_back_to_the_other_kind_and_forth(
    second: dict[str, Any], first: dict[str, str], before: str, ops: Any, edge: Any, app1: Any
) -> None:
    for wanted, root in ((before, ""), (first["id"], f"/opt/app/releases/{first['id']}/rootfs")):
        run = ops.rollback(wanted)
        assert run.code == 0, run.output
        edge.wait(10, release=wanted)
        unit = f"gunicorn@{ops.status()['live']['generation']}.service"
        assert app1.check_output(f"systemctl show --property=RootDirectory --value {unit}") == root


def test_mounts_that_are_gone_come_back(
    first: dict[str, str], second: dict[str, Any], ops: Any, edge: Any, app1: Any
) -> None:
    """As a reboot leaves it: no mount, nothing under /run, and app.service begins."""
    app1.check_output("systemctl stop app.service")
    app1.check_output("rm -rf /run/systemd/system/gunicorn@* /run/systemd/system/celery-*; systemctl daemon-reload")
    app1.check_output(f"umount /opt/app/releases/*/rootfs && {PODMAN} image unmount --all")
    app1.check_output("systemctl start app.service")
    edge.wait(20, release=first["id"])
    # While it serves: what can be gone back to is mounted again as well.
    app1.check_output(f"umount --lazy /opt/app/releases/{first['id']}/rootfs")
    assert any("is not mounted" in line for line in ops.status()["drift"])
    assert edge.get("/readyz").release == first["id"]
    said = ops.releasectl("reconcile")
    assert any(first["id"] in line and "was put back" in line for line in said["done"])
    for name in (first["id"], second["id"]):
        assert app1.run(f"mountpoint -q /opt/app/releases/{name}/rootfs").rc == 0, name
    assert ops.status()["drift"] == []


def test_what_may_not_be_pulled_is_refused_by_reason_and_leaves_nothing(
    first: dict[str, str], shop: Shop, ops: Any, app1: Any, cargo: dict[str, Any]
) -> None:
    there = {one["id"] for one in ops.status()["releases"]}
    no_command = shop.image(cargo["good-1"])
    no_command.command = []
    shell = shop.image(cargo["good-1"])
    shell.command = ["sh", "-c", "exec gunicorn config.wsgi"]
    absent = "sha256:" + "ab" * 32
    spoilt = shop.push("spoilt", shop.image(cargo["good-1"], spoilt="spoilt\n"))
    shop.registry.spoil(spoilt, shop.image(cargo["good-2"]).manifest().data)
    answers = {
        f"other.example.com/{REPOSITORY}@{first['digest']}": "is in none of the registries that this host pulls from",
        shop.name(f"-other@{first['digest']}"): "has no",
        shop.name(f"@{absent}"): "has no",
        shop.name(f"@{spoilt}"): "other content",
        shop.name(f"@{shop.push('no-command', no_command)}"): "has no command",
        shop.name(f"@{shop.push('shell', shell)}"): "is not gunicorn",
        "bookshop:latest": "does not name an image",
        f"{shop.registry.host}/{REPOSITORY}": "does not say which image",
    }
    for image, sentence in answers.items():
        said = ops.releasectl("prepare", "--id=refused-1", f"--image={image}")
        assert not said["ok"], image
        assert sentence in said["message"], said["message"]
    assert {one["id"] for one in ops.status()["releases"]} == there
    assert app1.run("findmnt -n -o TARGET | grep refused-1").rc != 0
    assert ops.live() == first["id"]


def test_what_the_app_runs_of_its_own_runs_inside_as_well(
    first: dict[str, str], shop: Shop, ops: Any, app1: Any
) -> None:
    def site(extra: list[Any], timers: list[Any]) -> None:
        words = {**shop.registry.variables(), "app_extra_processes": extra, "app_timers": timers}
        run = ops.playbook(
            "playbooks/site.yml", "--tags", "services,release", "--limit", "app1", "-e", json.dumps(words)
        )
        assert run.code == 0, run.output

    command = ["python3", "-c", "import time; time.sleep(10**6)"]
    tell = ["sh", "-c", "python3 manage.py diffsettings >/dev/null && echo told in $PWD"]
    extra = [{"name": name, "command": command, "single": single, "stop_timeout": 5}
             for name, single in (("probe", False), ("lonely", True))]  # fmt: skip
    site(extra, [{"name": "tell", "command": tell, "calendar": "2099-01-01"}])
    try:
        generation = ops.status()["live"]["generation"]
        assert ops.live() == first["id"]
        for process in ("app-probe", "app-lonely"):
            pid = app1.check_output(f"systemctl show --property=MainPID --value {process}@{generation}.service")
            assert pid != "0", process
            assert app1.run(f"ls /proc/{pid}/root/opt/app/incoming").rc != 0, process
        app1.check_output("systemctl start app-job-tell.service && journalctl --sync")
        said = app1.check_output(f"journalctl -o cat --no-pager -u app-job-tell@{generation}")
        assert "told in /app" in said
        assert ops.status()["drift"] == []
    finally:
        site([], [])


def test_an_sbom_is_asked_for_where_it_is_required(
    first: dict[str, str], shop: Shop, ops: Any, cargo: dict[str, Any], app1: Any
) -> None:
    shop.apply(release_image_sbom="required")

    def asked(digest: str) -> dict[str, Any]:
        answer: dict[str, Any] = ops.releasectl("prepare", "--id=listed-1", f"--image={shop.name(f'@{digest}')}")
        return answer

    packages = app1.check_output(f"ls /opt/app/releases/{first['id']}/rootfs/{oci.PACKAGES}").split()
    known = [name.removesuffix(".dist-info").rpartition("-") for name in packages if name.endswith(".dist-info")]
    whole = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [{"name": name, "version": version} for name, _dash, version in known],
    }
    short = {**whole, "components": whole["components"][1:]}
    for content, sentence in (("", "has no SBOM"), (json.dumps(short), "does not list what is installed")):
        digest = shop.push("listed", shop.image(cargo["good-1"], **({SBOM: content} if content else {"none": "x"})))
        assert sentence in asked(digest)["message"]
    said = asked(shop.push("whole", shop.image(cargo["good-1"], **{SBOM: json.dumps(whole)})))
    assert said["ok"], said["message"]
    assert release(ops, "listed-1")["sbom"] == f"/{SBOM}"


def test_images_go_with_the_last_release_of_theirs(first: dict[str, str], ops: Any, app1: Any) -> None:
    def images() -> int:
        return len(app1.check_output(f"{PODMAN} images --quiet --no-trunc").split())

    of_images = [one["id"] for one in ops.status()["releases"] if one["image"]]
    assert images() == len(of_images)
    assert ops.releasectl("discard", "--id=listed-1")["changed"]
    assert images() == len(of_images) - 1
    assert not app1.file("/opt/app/releases/listed-1").exists


# What else it can be


def back(ops: Any, edge: Any, release: str) -> None:
    assert ops.rollback(release).code == 0
    edge.wait(10, release=release)


def test_a_preview_asks_the_registry_and_pulls_nothing(
    first: dict[str, str], shop: Shop, ops: Any, cargo: dict[str, Any]
) -> None:
    image = shop.image(cargo["good-2"], preview="yes")
    commit = cargo["good-2"]["revision"]
    digest = shop.push(commit, image)
    before = ops.status()
    told = ops.playbook("playbooks/deploy.yml", "--check", "-e", f"release_image={shop.name(f':{commit}')}")
    assert told.code == 0, told.output
    would = f"bookshop-{commit[:12]}-{digest[7:15]} would go live on app1 in place of {first['id']}"
    assert told.closing.startswith(would), told.closing
    assert "disk: about" in told.output
    assert not {image.layers[-1].digest, image.config().digest} & set(shop.registry.sent(REPOSITORY))
    after = ops.status()
    assert (after["live"], after["releases"]) == (before["live"], before["releases"])
    absent = ops.playbook("playbooks/deploy.yml", "--check", "-e", f"release_image={shop.name('@sha256:' + 'cd' * 32)}")
    assert absent.code != 0
    assert "has no" in absent.closing


def test_an_asgi_app_goes_live(
    first: dict[str, str], shop: Shop, ops: Any, edge: Any, app1: Any, cargo: dict[str, Any]
) -> None:
    image = shop.image(cargo["good-2"], **{"app/config/asgi.py": ASGI})
    image.layers.insert(2, oci.requirements(oci.ASGI))
    image.command = ["gunicorn", "config.asgi:application", "-k", "uvicorn_worker.UvicornWorker", "--workers", "2"]
    digest = shop.push("asgi", image)
    # The lab says of the bookshop that it is WSGI.
    shop.apply()
    refused = shop.deploy(f"@{digest}")
    assert refused.code != 0
    assert "starts Gunicorn with uvicorn_worker.UvicornWorker, which serves ASGI, and app_wsgi is" in refused.closing
    shop.apply(app_wsgi="")
    run = shop.deploy(f"@{digest}")
    assert run.code == 0, run.output
    edge.wait(10, release=f"bookshop-{digest[7:19]}")
    page = edge.get("/")
    assert (page.status, page.release) == (200, f"bookshop-{digest[7:19]}")
    generation = ops.status()["live"]["generation"]
    main = app1.check_output(f"systemctl show --property=MainPID --value gunicorn@{generation}.service")
    words = app1.check_output(f"tr '\\0' ' ' </proc/{main}/cmdline")
    assert "uvicorn_worker.UvicornWorker" in words
    # What only an application that is called asynchronously answers.
    assert edge.get("/interface").text == "http, asynchronously"
    back(ops, edge, first["id"])
    shop.apply()


def test_a_restore_point_is_made_from_inside(
    first: dict[str, str], shop: Shop, ops: Any, edge: Any, app1: Any, data1: Any, lab: dict[str, Any]
) -> None:
    keeper = Keeper(app1, data1)
    shop.apply(**keeper.variables())
    keeper.admit()
    dropping = packing.variants(["drop-9"], LAB)["drop-9"]
    image = shop.image(dropping)
    image.layers.insert(2, oci.layer(postgresql_client(lab["hosts"]["app1"]["container"])))
    digest = shop.push("dropping", image)
    made = f"bookshop-{digest[7:19]}"
    try:
        run = shop.deploy(f"@{digest}")
        assert run.code == 0, run.output
        edge.wait(10, release=made)
        events = ops.releasectl("history")["events"]
        event = next(e for e in events if e["verb"] == "migrate" and e["release"] == made)
        point = event["restore_point"]
        assert event["applied"] == ["bookshop.0003_pen", "bookshop.0004_drop_pen"]
        assert data1.check_output(f"sha256sum {DIRECTORY}/{point['name']}").split()[0] == point["sha256"]
        words = ["-e", f"release_id={first['id']}", "-e", "rollback_accept_schema=true"]
        assert ops.playbook("playbooks/rollback.yml", *words).code == 0
        back = ["-e", "app=bookshop", "-e", "migration=0002_first_books", "-e", f"release_id={made}"]
        run = ops.playbook("playbooks/migrate.yml", *back)
        assert run.code == 0, run.output
    finally:
        keeper.leave()
        shop.apply()
        app1.check_output("rm -r /etc/slipway/restore-point")


# What is signed

WRONG: dict[str, dict[str, Any] | None] = {
    "is not signed, and release_image_signatures is 'required'": None,
    "is signed by none of the keys in release_image_signature_key": {"key": OTHER},
    "or was changed since": {"changed": True},
    "is that of other content ('sha256:abab": {"about": "sha256:" + "ab" * 32},
    "is for 'registry.example.com/shop'": {"name": "registry.example.com/shop"},
}


@pytest.fixture(scope="module")
def signing(first: dict[str, str], shop: Shop) -> dict[str, Any]:
    """From here on images have to be signed, by the key that comes or by the one that goes."""
    keys = oci.public_key(COMING) + oci.public_key(KEY)
    variables = {"release_image_signatures": "required", "release_image_signature_key": keys}
    shop.apply(**variables)
    return variables


@pytest.mark.failure("image-not-signed")
def test_what_is_not_signed_as_it_should_be_is_refused_before_anything_is_pulled(
    signing: Any, first: dict[str, str], shop: Shop, ops: Any, app1: Any, cargo: dict[str, Any]
) -> None:
    images = {}
    for number, (sentence, how) in enumerate(WRONG.items()):
        image = shop.image(cargo["good-1"], wrong=f"{number}")
        digest = shop.push(f"wrong-{number}", image)
        if how is not None:
            shop.sign(digest, **how)
        images[sentence] = (image, digest)
    signed = shop.image(cargo["good-1"], wrong="no key")
    shop.sign(shop.push("no-key", signed))
    for sentence, (image, digest) in images.items():
        said = ops.releasectl("prepare", "--id=wrong-1", f"--image={shop.name(f'@{digest}')}")
        assert not said["ok"], sentence
        assert sentence in said["message"], said["message"]
        assert said["message"].endswith("nothing was pulled.")
        assert not {image.layers[-1].digest, image.config().digest} & set(shop.registry.sent(REPOSITORY))
    app1.check_output(f"mv {KEYS} {KEYS}.away")
    try:
        said = ops.releasectl("prepare", "--id=wrong-1", f"--image={shop.name(f'@{signed.manifest().digest}')}")
    finally:
        app1.check_output(f"mv {KEYS}.away {KEYS}")
    assert f"no public key is in {KEYS}: set release_image_signature_key" in said["message"]
    assert signed.layers[-1].digest not in shop.registry.sent(REPOSITORY)
    assert ops.live() == first["id"]
    run = ops.playbook("playbooks/site_check.yml", "-e", json.dumps({**signing, "release_image_signature_key": "",
                                                                     **shop.registry.variables()}))  # fmt: skip
    assert run.code != 0
    assert "release_image_signature_key is empty" in " ".join(run.output.split())


def test_what_is_signed_by_one_of_the_keys_goes_live(
    signing: Any, first: dict[str, str], shop: Shop, ops: Any, edge: Any, cargo: dict[str, Any]
) -> None:
    digest = shop.push("signed", shop.image(cargo["good-2"], signed="yes"))
    name, release_id = shop.name(f"@{digest}"), f"bookshop-{digest[7:19]}"
    told = ops.playbook("playbooks/deploy.yml", "--check", "-e", f"release_image={name}")
    assert "is not signed" in told.closing
    shop.sign(digest)
    run = shop.deploy(f"@{digest}")
    assert run.code == 0, run.output
    edge.wait(10, release=release_id)
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert release(ops, release_id)["signed_by"] == hashlib.sha256(der).hexdigest()
    back(ops, edge, first["id"])


def test_a_bundle_of_sigstore_is_a_signature_as_well(signing: Any, shop: Shop, ops: Any, cargo: dict[str, Any]) -> None:
    for number, key in enumerate((OTHER, COMING)):
        digest = shop.push(f"bundle-{number}", shop.image(cargo["good-2"], bundle=f"{number}"))
        shop.registry.client.attest(REPOSITORY, digest, oci.bundle(key, digest))
        said = ops.releasectl("prepare", "--id=bundle-1", f"--image={shop.name(f'@{digest}')}")
        assert said["ok"] is (key is COMING), said["message"]
    assert ops.releasectl("discard", "--id=bundle-1")["changed"]


def test_where_no_images_are_taken_any_more_no_secret_is_left(
    first: dict[str, str], before: str, shop: Shop, ops: Any, app1: Any
) -> None:
    assert app1.file(CREDENTIALS).exists
    assert ops.rollback(before).code == 0
    run = ops.playbook(CONVERGE)
    assert run.code == 0, run.output
    assert not app1.file(CREDENTIALS).exists
    said = ops.releasectl("prepare", "--id=refused-1", f"--image={shop.name(f'@{first["digest"]}')}")
    assert "takes no releases from images" in said["message"]
