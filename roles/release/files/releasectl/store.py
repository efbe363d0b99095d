"""The store of images: podman, of which nothing ever runs. Registries are asked, and images kept and mounted, by it.

It is root of its own: what is in it came by `pull`, and goes when no release uses it. What podman needs of the kernel a
verb does not have, so each call is a transient unit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import image
from .app import OVERLAY
from .config import Config
from .errors import CommandFailed, Refusal
from .files import remove_tree
from .image import ROOTFS, architecture_here
from .reference import Reference
from .systemd import SPARING, confined, run, sandboxed

SKELETON = "mountpoints"
# What every process finds mounted; an image need not have the places for it.
API = ("proc", "sys", "dev", "run", "tmp", "var/tmp")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
# A registry's tool: as root, for the store is root's, but with nothing besides.
TRANSFER = (
    "ProtectHome=tmpfs",
    "ProtectClock=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectHostname=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    *SPARING,
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MANIFEST_MAX = 4 * 1024 * 1024
# Layers, and bytes of them together, of what lies beside an image.
ATTACHED_MOST = 100
ATTACHED_MAX = 1024 * 1024


def _podman(config: Config) -> list[str]:
    where = f"--root={config.image_store}", f"--runroot={config.image_run}"
    return ["/usr/bin/env", "HOME=/root", "/usr/bin/podman", "--storage-driver=overlay", *where]


def _credentials(config: Config) -> list[str]:
    return ["--authfile", str(config.image_credentials)] if config.image_credentials.is_file() else []


def _call(
    config: Config, unit: str, argv: Sequence[str], what: str, properties: Sequence[str] = (), timeout: int = 0
) -> str:
    return sandboxed(
        f"releasectl-{unit}",
        argv,
        [*properties, f"MemoryMax={config.build_memory_max}"],
        ENVIRONMENT,
        timeout or config.image_pull_timeout,
        what,
    )


class Absent(Refusal):
    """A registry does not have what it was asked for."""


# Asking a registry


def manifest(config: Config, reference: Reference) -> tuple[str, dict[str, Any]]:
    """The digest of what a reference names by now, and the manifest that is for this host."""
    digest, said = _raw(config, reference)
    if said.get("mediaType") in INDEXES or "manifests" in said:
        here = architecture_here()
        try:
            found = [one["digest"] for one in said["manifests"] if _is_for(one["platform"], here)]
        except (KeyError, TypeError, AttributeError):
            raise Refusal(f"{reference.registry} answered for {reference.path} with what is no index.") from None
        if found:
            return digest, _raw(config, reference.pinned(str(found[0])))[1]
        raise Refusal(f"{reference} is for other systems than linux/{here}: build it for that.")
    return digest, said


def _is_for(platform: dict[str, Any], architecture: str) -> bool:
    return (platform["os"], platform["architecture"]) == ("linux", architecture)


def referrers(config: Config, reference: Reference) -> list[dict[str, Any]]:
    """What refers to an image, as the index lists it that its digest gives the tag of."""
    try:
        return list(_raw(config, reference.beside(""))[1]["manifests"])
    except Absent:
        return []


def attached(config: Config, reference: Reference) -> tuple[dict[str, Any], list[bytes]] | None:
    """A small thing that is kept as an image is: its manifest, and what is in its layers; None when there is none."""
    try:
        digest, manifest = _raw(config, reference)
    except Absent:
        return None
    try:
        parts = [manifest["config"], *manifest["layers"]]
        # Older versions of skopeo trust these to be names of files.
        digests = [DIGEST.fullmatch(part["digest"])[0] for part in parts]  # type: ignore[index]
        size = sum(int(part["size"]) for part in parts)
    except (KeyError, TypeError, ValueError):
        raise Refusal(f"{reference.registry} answered for {reference} with what is no signature.") from None
    if len(digests) > ATTACHED_MOST + 1 or size > ATTACHED_MAX:
        raise Refusal(
            f"{reference} is larger than {ATTACHED_MOST} signatures are: remove it ('cosign clean'), and sign anew."
        )
    return manifest, _layers(config, reference.pinned(digest), digests[1:])


def _layers(config: Config, reference: Reference, digests: Sequence[str]) -> list[bytes]:
    name = _unit(reference.by_digest)
    place = config.private_run / f"{name}.d"
    remove_tree(place)
    words = ["/usr/bin/skopeo", f"--policy={config.image_policy}", "copy", "--quiet", *_credentials(config)]
    limits = [*TRANSFER, f"LimitFSIZE={ATTACHED_MAX}"]
    try:
        _call(config, name, [*words, f"docker://{reference.by_digest}", f"dir:{place}"], "Asking it", limits)
        return [(place / digest.removeprefix("sha256:")).read_bytes() for digest in digests]
    except CommandFailed as failed:
        raise _unasked(config, reference, failed) from None
    finally:
        remove_tree(place)


def _unit(asked: str) -> str:
    return f"registry-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"


def _raw(config: Config, reference: Reference) -> tuple[str, dict[str, Any]]:
    """The manifest as the registry has it, into a file: its digest is that of its very bytes."""
    asked = reference.by_digest if reference.digest else str(reference)
    name = _unit(asked)
    path = config.private_run / name
    try:
        words = ["/usr/bin/skopeo", "inspect", "--raw", *_credentials(config), f"docker://{asked}"]
        script = f'exec "$@" | head -c {MANIFEST_MAX + 1} >"$0"'
        _call(config, name, ["/bin/bash", "-o", "pipefail", "-c", script, str(path), *words], "Asking it", TRANSFER)
        data = path.read_bytes()
    except CommandFailed as failed:
        raise _unasked(config, reference, failed) from None
    finally:
        path.unlink(missing_ok=True)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if reference.digest not in (None, digest):
        raise Refusal(
            f"{reference.registry} answered with other content ({digest[:19]}…) than {reference.digest}: nothing was"
            " pulled; ask who keeps the registry."
        )
    try:
        said = json.loads(data)
    except ValueError:
        said = None
    if not isinstance(said, dict) or len(data) > MANIFEST_MAX:
        raise Refusal(f"{reference.registry} answered for {reference.path} with what is no manifest.")
    return digest, said


def _unasked(config: Config, reference: Reference, failed: CommandFailed) -> Refusal:
    """Why a registry did not give what was asked for, as an operator can act on it."""
    said = " ".join([failed.message, *map(str, failed.details.get("journal", ()))]).lower()  # type: ignore[call-overload]
    if "unauthorized" in said or "authentication required" in said or "denied" in said:
        have = config.image_credentials.is_file()
        why = "does not let this host in" + ("" if have else ", which has no credentials")
        hint = "set release_image_credentials (docs/ops/images.md) and run site.yml"
    elif "manifest unknown" in said or "not found" in said or "name unknown" in said:
        return Absent(
            f"{reference.registry} has no {reference}: push it, or name another; what is live was not touched."
        )
    elif "x509" in said or "certificate" in said:
        why = "has a certificate that this host does not trust"
        hint = "set release_image_ca_certificate to its authority and run site.yml"
    elif any(word in said for word in ("i/o timeout", "no such host", "refused", "unreachable", "deadline exceeded")):
        why, hint = "cannot be reached from this host", "let it out in firewall_outbound_extra and run site.yml"
    elif "did not match" in said or "mismatch" in said or "does not match" in said or "digest" in said:
        why, hint = f"gave other content than {reference} names", "ask who keeps the registry"
    else:
        why, hint = f"did not give {reference}", "see the lines above"
    return Refusal(
        f"{reference.registry} {why}: {hint} ({failed.message[:200]}); what is live was not touched.", **failed.details
    )


# Keeping


def missing(config: Config, said: dict[str, Any]) -> int:
    """The bytes of those layers of a manifest that would have to come, compressed as they are sent."""
    try:
        known = json.loads((config.image_store / "overlay-layers" / "layers.json").read_text())
        have = {str(layer.get("compressed-diff-digest")) for layer in known}
    except (OSError, ValueError, AttributeError, TypeError):
        have = set()
    try:
        return sum(int(layer["size"]) for layer in said["layers"] if str(layer["digest"]) not in have)
    except (KeyError, TypeError, ValueError):
        raise Refusal("The registry's manifest does not list its layers: push the image anew.") from None


def pull(config: Config, reference: Reference, release: str) -> None:
    """Have an image in the store; layers that are there do not come again."""
    words = [*_podman(config), "pull", "--quiet", *_credentials(config), f"--signature-policy={config.image_policy}"]
    try:
        _call(config, f"pull-{release}", [*words, f"docker://{reference.by_digest}"], f"Pulling {reference}", TRANSFER)
    except CommandFailed as failed:
        raise _unasked(config, reference, failed) from None


def inspect(config: Config, name: str) -> Any:
    """What podman knows of an image in the store."""
    words = [*_podman(config), "image", "inspect", name]
    ended = confined("releasectl-image-inspect", words, [], ENVIRONMENT, config.image_pull_timeout)
    try:
        # What it says on standard error comes behind.
        return json.JSONDecoder().raw_decode(ended.output)[0][0]
    except (ValueError, LookupError):
        raise Refusal(f"podman does not describe {name}: {ended.output.strip()[-200:]}") from None


def remove(config: Config, identity: str, say: Callable[[str], None]) -> None:
    """Remove an image that no release uses; that it stays a while longer harms nobody."""
    try:
        words = [*_podman(config), "image", "rm", "--force", identity]
        _call(config, "image-rm", words, "Removing an image")
    except Refusal as refusal:
        say(f"{refusal.message}: the next prune tries again")


def prune(config: Config, wanted: Iterable[str], say: Callable[[str], None]) -> int:
    """Remove what no kept release uses; return how many images that were."""
    if not config.image_store.is_dir():
        return 0
    keep = {identity.removeprefix("sha256:") for identity in wanted}
    listed = _call(
        config, "image-list", [*_podman(config), "images", "--all", "--quiet", "--no-trunc"], "Listing images"
    )
    gone = {line.strip().removeprefix("sha256:") for line in listed.splitlines() if line.strip()} - keep
    for identity in sorted(gone):
        remove(config, identity, say)
    return len(gone)


# Mounting. What follows the two calls runs on the host itself, see hostctl.


def mounted(config: Config, release: str) -> bool:
    return os.path.ismount(config.release_dir(release) / ROOTFS)


def require_mounted(config: Config, release: str, again: bool = False) -> bool:
    """Have the root of a release from an image in its place, anew when ``again``; return whether it had to be made."""
    found = image.of(config.release_dir(release))
    if found is None or (not again and mounted(config, release) and _complete(config, release)):
        return False
    words = ["/usr/local/libexec/slipway/hostctl", "mount", release]
    _call(config, f"mount-{release}", words, f"Mounting the image of {release}", timeout=60)
    if not mounted(config, release):
        raise Refusal(f"The image of {release} was mounted and is not seen: run 'releasectl reconcile'.")
    return True


def unmount(config: Config, release: str) -> None:
    """Take the root of a release away, before its directory is removed."""
    if mounted(config, release):
        words = ["/usr/local/libexec/slipway/hostctl", "unmount", release]
        _call(config, f"mount-{release}", words, f"Unmounting the image of {release}", timeout=60)


def shown(config: Config, release: str) -> list[Path]:
    """What of the host every process of a release from an image sees, at its own place."""
    programs = config.launcher, config.inside, config.serving
    overlay = [OVERLAY] if config.settings_overlay else []
    return [*programs, *overlay, config.release_dir(release) / "static", *map(Path, config.image_paths)]


def writable(config: Config, process: str) -> list[Path]:
    """What a process may write besides its own runtime directory: as its unit says."""
    unit = config.units / f"{process}@.service"
    lines = [line.partition("=") for line in unit.read_text().splitlines()] if unit.is_file() else []
    return [Path(path.lstrip("-+")) for key, _is, value in lines if key == "ReadWritePaths" for path in value.split()]


def _places(config: Config, release: str) -> list[Path]:
    processes = (*config.processes, *config.jobs)
    all_writable = [*map(Path, config.writable), *(path for process in processes for path in writable(config, process))]
    return [path for path in (*shown(config, release), *all_writable) if path.exists()]


def _complete(config: Config, release: str) -> bool:
    """Whether there is a place inside for all that is shown: that may have become more since it was mounted."""
    skeleton = config.release_dir(release) / SKELETON
    return all((skeleton / str(path).lstrip("/")).exists() for path in _places(config, release))


def mount(config: Config, release: str) -> None:
    """Mount the image's root, read-only, and above it the empty places where the host's own is shown."""
    directory = config.release_dir(release)
    found = image.of(directory)
    if found is None:
        raise Refusal(f"{release} is no release from an image.")
    merged = run([*_podman(config), "image", "mount", found.identity])
    if merged.returncode != 0:
        raise Refusal(
            f"The image of {release} is not in the store any more ({merged.stderr.strip()[-200:]}): deploy it again."
        )
    rootfs = directory / ROOTFS
    while os.path.ismount(rootfs):
        _must(["umount", "--lazy", str(rootfs)])
    skeleton = directory / SKELETON
    remove_tree(skeleton)
    for place in API:
        _make(skeleton / place, True)
    for path in _places(config, release):
        _make(skeleton / str(path).lstrip("/"), path.is_dir())
    rootfs.mkdir(mode=0o755, exist_ok=True)
    lower = f"{skeleton}:{merged.stdout.strip()}"
    _must(["mount", "-t", "overlay", "-o", f"ro,nodev,nosuid,lowerdir={lower}", f"image-{release}"[:60], str(rootfs)])


def detach(config: Config, release: str) -> None:
    """The other way round; processes that still have it keep it."""
    directory = config.release_dir(release)
    while os.path.ismount(directory / ROOTFS):
        _must(["umount", "--lazy", str(directory / ROOTFS)])
    found = image.of(directory)
    if found is not None:
        run([*_podman(config), "image", "unmount", "--force", found.identity])


def _make(place: Path, directory: bool) -> None:
    # Not what the umask says: the app passes through.
    for parent in reversed([p for p in place.parents if not p.exists()]):
        parent.mkdir()
        parent.chmod(0o755)
    if directory:
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
    else:
        place.touch()
        place.chmod(0o644)


def _must(argv: Sequence[str]) -> None:
    done = run(argv)
    if done.returncode != 0:
        raise Refusal(f"{argv[0]} failed: {done.stderr.strip()[-300:]}")
