"""Check on this machine, before any host is asked, all that a deploy or a rollback was told."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import re
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

# This repository's own parts, whatever directory the playbook was called from, and the program that hosts run.
ROOT = Path(__file__).resolve().parents[2]
for place in (str(ROOT), str(ROOT / "roles/release/files")):
    if place not in sys.path:
        sys.path.append(place)

from plugins.filter.alerts import lets_out
from plugins.notices import channels
from releasectl import image, needs, points, reference, signature, smoke
from releasectl.errors import Refusal, UsageError

WATCH_MOST = 3600  # seconds, as releasectl activate --watch

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
COMMIT = re.compile(r"(?P<name>.+)-(?P<commit>[0-9a-f]{40})\Z")
PLACE = re.compile(r"/[A-Za-z0-9._/@+-]{1,200}")
CHUNK = 1 << 20
SPECS = Path(__file__).parents[2] / "roles/release/meta/argument_specs.yml"


class Refused(Exception):
    """What was typed cannot be meant; the text is the sentence for whoever typed it."""


def short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return repr(shown if len(shown) <= 80 else shown[:79] + "…")


def check_names(variables: list[str], known: set[str]) -> None:
    """Refuse a variable that looks like one of the role release and is none: it would do nothing, silently."""
    for name in sorted(variables):
        if name.startswith("release_") and name not in known:
            words = [word.removeprefix("release_") for word in sorted(known)]
            near = difflib.get_close_matches(name.removeprefix("release_"), words, 1, 0.6)
            raise Refused(
                f"{short(name)} is not a variable of the role release"
                + (
                    f": did you mean release_{near[0]}?"
                    if near
                    else "; see roles/release/README.md for those that are."
                )
            )


def check_id(text: str) -> str:
    if not ID.match(text) or ".." in text:
        raise Refused(
            f"{short(text)} is not a release id: 1 to 64 letters, digits, '.', '_' or '-',"
            " beginning with a letter or a digit and without '..'."
        )
    return text


def identify(path: Path) -> str:
    """Take the id from the artifact's name: <name>-<commit>.tar.gz is <name>-<first 12 of the commit>."""
    if not path.name.endswith(".tar.gz"):
        raise Refused(f"release_artifact must be named <name>-<commit>.tar.gz; {short(path.name)} is not.")
    stem = path.name.removesuffix(".tar.gz")
    found = COMMIT.match(stem)
    if found:
        stem = f"{found['name']}-{found['commit'][:12]}"
    try:
        return check_id(stem)
    except Refused as refusal:
        raise Refused(f"The artifact's name gives no release id: {refusal}") from refusal


def check_artifact(typed: str, where: Path) -> dict[str, Any]:
    """Find the artifact, read it to its end, and say what it is."""
    if not typed:
        raise Refused(
            "Say what to deploy: -e release_artifact=dist/<name>-<commit>.tar.gz ('make artifact' packs one), or"
            " -e release_image=registry/app@sha256:<digest>."
        )
    path = where / Path(typed).expanduser()
    if not path.is_file():
        raise Refused(f"There is no artifact {path}: 'make artifact' packs one into dist/.")
    release = identify(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                raise Refused(f"{path} is not a gzip-compressed tar archive.")
            file.seek(0)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        with gzip.open(path) as stream:
            # To the end, where gzip keeps its checksum: what was cut short on the way shows here, not on the host.
            needed = read_needs(stream)
            while stream.read(CHUNK):
                pass
    except EOFError as error:
        raise Refused(f"{path} is truncated: pack or download it again.") from error
    except tarfile.HeaderError as error:
        raise Refused(f"{path} is gzip-compressed but holds no tar archive.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"{path} is damaged ({error}): pack or download it again.") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from error
    commit = COMMIT.match(path.name.removesuffix(".tar.gz"))
    return {
        "release": release, "artifact": str(path), "name": path.name, "sha256": digest.hexdigest(),
        "revision": commit["commit"] if commit else "", "settings": needed,
    }  # fmt: skip


def read_needs(stream: gzip.GzipFile) -> list[str]:
    """Read a tar archive, and which settings the app in it says that it needs; what the host refuses is the host's to
    say, but for a beginning that is none of an archive.
    """
    wanted, first = "", True
    while (header := stream.read(tarfile.BLOCKSIZE)).strip(b"\0") or first:
        try:
            entry = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            if first:
                raise
            break
        first = False
        left = -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if entry.isreg() and PurePosixPath(entry.name) == PurePosixPath(needs.FILE) and entry.size <= needs.MOST:
            wanted = stream.read(left)[: entry.size].decode(errors="replace")
            left = 0
        while left > 0 and (skipped := len(stream.read(min(left, CHUNK)))):
            left -= skipped
    try:
        return needs.parse(wanted)
    except Refusal as refusal:
        raise Refused(f"{refusal.message} Correct it, commit and pack it anew.") from refusal


def check_source(artifact: str, named: str, where: Path) -> dict[str, Any]:
    """An artifact or an image, whichever was given. Of an image by its tag alone, a host has to ask what it is."""
    if not named:
        return {**check_artifact(artifact, where), "image": ""}
    if artifact:
        raise Refused("release_artifact and release_image are both given: a release is made of one of them.")
    try:
        found = reference.parse(named)
    except UsageError as error:
        raise Refused(f"release_image: {error.message}") from error
    return {
        "release": found.release_id() if found.digest else "",
        "image": str(found),
        "name": "",
        "sha256": "",
        "revision": found.revision or "",
        # They are inside, and 'prepare' asks for them once it is pulled.
        "settings": [],
    }


def check_images(given: dict[str, Any]) -> None:
    """Refuse settings of releases from images that no host could keep to. No value of a credential is repeated."""
    if not given.get("enabled"):
        return
    registries = list(given.get("registries") or [])
    place = "Set it right in group_vars/<environment>/release.yml; nothing was changed."
    if not registries:
        raise Refused(f"release_images is true and release_image_registries is empty: nothing could be pulled. {place}")
    if problem := reference.check_places(registries):
        raise Refused(f"{problem} {place}")
    for registry, one in dict(given.get("credentials") or {}).items():
        if not isinstance(one, dict) or set(one) != {"username", "password"} or not all(map(str, one.values())):
            raise Refused(f"release_image_credentials: {short(str(registry))} needs username and password. {place}")
        if not any(f"{entry}/".startswith(f"{registry}/") for entry in registries):
            raise Refused(
                f"release_image_credentials has {short(str(registry))}, which release_image_registries does not: its"
                f" password would lie on hosts for nothing. {place}"
            )
    check_keys(str(given.get("signature_key") or ""), str(given.get("signatures")))
    if (authority := str(given.get("ca_certificate") or "")) and "-----BEGIN CERTIFICATE-----" not in authority:
        raise Refused(f"release_image_ca_certificate is no certificate as PEM. {place}")
    if command := list(given.get("command") or []):
        image.web_command("release_image_command", command)
    for path in given.get("paths") or []:
        if not PLACE.fullmatch(str(path)) or ".." in str(path).split("/"):
            raise Refused(f"release_image_paths holds {short(str(path))}, which is no plain absolute path. {place}")
    _check_outbound(registries, list(given.get("outbound") or []), {"all", *map(str, given.get("groups") or [])})


def check_keys(text: str, signatures: str) -> None:
    """Refuse what is not one public key of cosign, or several; hosts would hold signatures against it and find none."""
    place = "Set it right in group_vars/<environment>/release.yml; nothing was changed."
    if not text.strip():
        if signatures != "ignored":
            raise Refused(
                f"release_image_signatures is {signatures!r}, and release_image_signature_key is empty: set it to what"
                f" 'cosign public-key --key …' prints. {place}"
            )
        return
    if "PRIVATE KEY" in text:
        raise Refused(
            f"release_image_signature_key holds a private key, which no host may have: set the public one. {place}"
        )
    if "BEGIN CERTIFICATE" in text:
        raise Refused(
            "release_image_signature_key holds a certificate, and signatures without a key (keyless) are not checked:"
            f" sign with 'cosign sign --key …' and set the public key. {place}"
        )
    try:
        keys = [load_pem_public_key(found[0].encode()) for found in signature.KEY.finditer(text)]
    except ValueError:
        keys = []
    if not keys or signature.KEY.sub("", text).strip():
        raise Refused(
            "release_image_signature_key is no public key as PEM, or more than that: set it to what"
            f" 'cosign public-key --key …' prints. {place}"
        )
    if not all(isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) for key in keys):
        raise Refused(
            "release_image_signature_key holds a key that is not ECDSA P-256: 'cosign generate-key-pair' makes such a"
            f" pair. {place}"
        )


def _check_outbound(registries: list[str], outbound: list[Any], groups: set[str]) -> None:
    if not outbound or not groups & {"app", "edge", "worker", "scheduler"}:
        return
    mine = [entry for entry in outbound if groups & set(entry.get("groups") or ["all"])]
    # It is root who pulls.
    mine = [{**entry, "user": ""} if entry.get("user") == "root" else entry for entry in mine]
    for registry in registries:
        host, _colon, port = registry.split("/", 1)[0].partition(":")
        if not any(lets_out(entry, host, int(port or 443)) for entry in mine):
            kind = "networks" if re.fullmatch(r"[0-9.]+", host) else "names"
            raise Refused(
                f"Images come from {registry}, and the firewall lets nothing out to there: add {{name: registry,"
                f" purpose: images of releases, ports: [{port or 443}], {kind}: [{host}]}} to firewall_outbound_extra,"
                " in group_vars/<environment>/firewall.yml, and to its names those that the registry sends layers from."
            )


def check_notices(given: dict[str, Any]) -> None:
    """Refuse what could not be told, before there is anything to tell. No value of it is repeated: some are secrets."""
    if problems := channels.check(given.get("to"), given.get("seconds"), given.get("repository")):
        raise Refused(
            f"{' '.join(problems)} Set it right in group_vars/<environment>/release.yml; nothing was changed."
        )


def check_watch(value: Any) -> None:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", str(value)) or int(value) > WATCH_MOST:
        raise Refused(
            f"release_watch_seconds is {short(str(value))}, not a whole number of seconds from 0 to {WATCH_MOST}."
        )


def check_warm_up(paths: Any) -> None:
    for path in paths or []:
        if not isinstance(path, str) or not smoke.PATH.fullmatch(path):
            raise Refused(
                f"release_warm_up_paths has {short(str(path))}, not a path (it begins with / and has no blanks):"
                f" {smoke.WHERE}."
            )


HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+) [A-Za-z0-9+/]{40,}={0,3}( .*)?\s*")


def check_restore_point(given: dict[str, Any]) -> None:
    """Refuse a place for restore points that could not be reached, or not be known for the right one."""
    target, recipient = str(given.get("target") or ""), str(given.get("recipient") or "")
    if target and not points.TARGET.fullmatch(target):
        raise Refused(f"release_restore_point_target is {short(target)}, not user@host.")
    if target and not HOST_KEY.fullmatch(str(given.get("host_key") or "")):
        raise Refused(
            "release_restore_point_host_key is not the public host key of release_restore_point_target: set it to what"
            f" 'ssh-keyscan -t ed25519 {target.partition('@')[2]}' says behind the name, once you have compared it."
        )
    if recipient and not points.RECIPIENT.fullmatch(recipient):
        raise Refused("release_restore_point_recipient is no public key of age, age1…: 'age-keygen' makes a pair.")


def check_canary(value: Any) -> None:
    try:
        good = not isinstance(value, bool) and 0 <= float(value) <= WATCH_MOST / 60
    except (TypeError, ValueError):
        good = False
    if not good:
        raise Refused(f"release_canary_minutes is {short(str(value))}, not a number from 0 to {WATCH_MOST // 60}.")


def known_names(specs: Path = SPECS) -> set[str]:
    entries = yaml.safe_load(specs.read_text())["argument_specs"]
    return {name for entry in entries.values() for name in entry.get("options", {})}


class ActionModule(ActionBase):
    """`release_check: {artifact: …}` for a deploy, `release_check: {id: …}` for a rollback; with either, or alone,
    `smoke_tests`, `warm_up` and `watch`. ``images`` is what hosts are told of releases from images.

    ``notices`` is who will be told: ``to``, within ``seconds``, with links into ``repository``.
    """

    _VALID_ARGS = frozenset(
        ("artifact", "canary", "id", "image", "images", "notices", "restore_point", "smoke_tests", "warm_up", "watch")
    )
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = self._task.args
        try:
            check_names([str(name) for name in task_vars or {}], known_names())
            smoke.parse(arguments.get("smoke_tests", []))
            check_watch(arguments.get("watch", 0))
            check_warm_up(arguments.get("warm_up"))
            check_canary(arguments.get("canary", 0))
            check_restore_point(dict(arguments.get("restore_point") or {}))
            check_images(dict(arguments.get("images") or {}))
            if arguments.get("notices") is not None:
                check_notices(dict(arguments["notices"]))
            if "artifact" in arguments:
                found = check_source(str(arguments["artifact"] or ""), str(arguments.get("image") or ""), Path.cwd())
            else:
                wanted = str(arguments.get("id") or "")
                found = {"release": check_id(wanted) if wanted else ""}
        except (Refused, Refusal) as refusal:
            return {"failed": True, "refused": True, "changed": False, "msg": str(refusal)}
        return {"changed": False, "msg": "", **found}
