"""The hosts' image: a minimal system with systemd, sshd and Python, as a provider would hand it over."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab import engine
from lab.state import ROOT, LabError

RECIPE = Path(__file__).parent / "recipe"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UBUNTU = "ubuntu-22.04"
NEXT_UBUNTU = "ubuntu-24.04"  # on request only
DEBIAN = "debian-12"
DEBIAN_SUITE = "bookworm"
REGISTRY_PATIENCE = 60  # seconds for the base image to arrive


def find_or_build(say: Callable[[str], None]) -> str:
    """Give the image to start hosts from: Ubuntu 22.04 where a registry answers, otherwise Debian 12."""
    wanted = os.environ.get("SLIPWAY_LAB_DISTRIBUTION", "")
    if wanted not in ("", UBUNTU, NEXT_UBUNTU, DEBIAN):
        raise LabError(
            f"SLIPWAY_LAB_DISTRIBUTION={wanted} is not known: use {UBUNTU}, {NEXT_UBUNTU} or {DEBIAN}, or leave it out."
        )
    candidates = [wanted] if wanted else [UBUNTU, DEBIAN]
    for distribution in candidates:
        if _is_current(distribution):
            _mention(distribution, wanted, say)
            return _tag(distribution)
    if candidates[0] != DEBIAN:
        trouble = _build_ubuntu(candidates[0], say)
        if not trouble:
            return _tag(candidates[0])
        if wanted:
            raise LabError(f"No registry gave {_base(wanted)}: {trouble}")
    _mention(DEBIAN, wanted, say)
    _build_debian(say)
    return _tag(DEBIAN)


def _mention(distribution: str, wanted: str, say: Callable[[str], None]) -> None:
    if distribution == DEBIAN and not wanted:
        say("hosts run Debian 12: no registry gave ubuntu:22.04, so the base comes from the apt mirror")


def _tag(distribution: str) -> str:
    return f"slipway-host:{distribution}"


def _base(distribution: str) -> str:
    return distribution.replace("-", ":")


def _is_current(distribution: str) -> bool:
    found = engine.inspect("image", [_tag(distribution)])
    return bool(found) and (found[0]["Config"].get("Labels") or {}).get("slipway.recipe") == _hash(distribution)


def _hash(distribution: str) -> str:
    """Of all that goes into the image: a change of any of it means that the image is built anew."""
    digest = hashlib.sha256(distribution.encode())
    for file in (*_recipe_files(), CERTIFICATES):
        digest.update(file.read_bytes() if file.is_file() else b"-")
    command = _mmdebstrap(Path("apt.conf"), Path("host.tar")) if distribution == DEBIAN else []
    digest.update("\n".join([*command, apt_settings()]).replace(str(RECIPE), "recipe").encode())
    return digest.hexdigest()[:16]


def _recipe_files() -> list[Path]:
    return sorted(file for file in RECIPE.iterdir() if file.is_file())


def _packages() -> list[str]:
    return (RECIPE / "packages").read_text().split()


def apt_settings() -> str:
    """How this machine reaches its mirror (a proxy, a frozen snapshot): hosts behind it need the same."""
    if not shutil.which("apt-config"):
        return ""
    dump = subprocess.run(
        ["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', "Acquire"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kept = re.compile(r"Acquire::(http|https|Check-Valid-Until|Check-Date|Retries)\b")
    return "".join(line + "\n" for line in dump.splitlines() if kept.match(line))


def mirrors() -> tuple[str, str]:
    """The machine's own mirrors of Debian and of its security updates."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(p.read_text() for p in places if p.is_file())
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    main = re.search(r"https?://\S+/debian(?=/?\s)", text)
    security = re.search(r"https?://\S+/debian-security(?=/?\s)", text)
    if main is None or security is None:
        raise LabError(
            "No registry gave ubuntu:22.04, and this machine's apt names no mirror of Debian to build a base from: "
            "let the engine reach a registry, or add Debian's archive and its security archive to "
            "/etc/apt/sources.list.d."
        )
    return main.group(), security.group()


def _build_ubuntu(distribution: str, say: Callable[[str], None]) -> str:
    """Build from a registry's base image. Gives the reason when there is no such base to be had."""
    try:
        engine.run("pull", "--quiet", _base(distribution), timeout=REGISTRY_PATIENCE)
    except LabError as error:
        return str(error)
    say(f"builds the host image from {_base(distribution)}")
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        for file in _recipe_files():
            shutil.copy(file, context)
        dockerfile = context / "Dockerfile"
        dockerfile.write_text(dockerfile.read_text().replace(f"FROM {_base(UBUNTU)}", f"FROM {_base(distribution)}"))
        (context / "apt.conf").write_text(apt_settings())
        (context / "ca-certificates.crt").write_bytes(CERTIFICATES.read_bytes() if CERTIFICATES.is_file() else b"")
        label = f"slipway.recipe={_hash(distribution)}"
        engine.run("build", "--quiet", "--tag", _tag(distribution), "--label", label, scratch, timeout=900)
    return ""


def _build_debian(say: Callable[[str], None]) -> None:
    """Build a base of our own with mmdebstrap, and import it."""
    _install_mmdebstrap(say)
    say("builds the host image with mmdebstrap (about a minute, once)")
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        archive = Path(scratch) / "host.tar"
        settings = Path(scratch) / "apt.conf"
        settings.write_text(apt_settings())
        command = _mmdebstrap(settings, archive)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError("mmdebstrap could not build the host image:\n" + "\n".join(done.stderr.splitlines()[-20:]))
        label = f"LABEL slipway.recipe={_hash(DEBIAN)}"
        engine.run("import", "--change", label, str(archive), _tag(DEBIAN), timeout=600)


def _mmdebstrap(settings: Path, archive: Path) -> list[str]:
    main, security = mirrors()
    command = [
        "mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists",
        f"--include={','.join(_packages())}",
        f"--setup-hook=copy-in {settings} /tmp",
        '--setup-hook=mkdir -p "$1/etc/apt/apt.conf.d" && mv "$1/tmp/apt.conf" "$1/etc/apt/apt.conf.d/90lab"',
        f"--customize-hook=copy-in {RECIPE / 'finish.sh'} {RECIPE / 'bytecode.py'} /tmp",
        '--customize-hook=chroot "$1" sh /tmp/finish.sh && rm "$1/tmp/finish.sh"',
        *(f"--aptopt={line}" for line in apt_settings().splitlines()),
    ]  # fmt: skip
    if CERTIFICATES.is_file():
        command.append(f"--customize-hook=upload {CERTIFICATES} /etc/ssl/certs/ca-certificates.crt")
    return [
        *command, DEBIAN_SUITE, str(archive),
        f"deb {main} {DEBIAN_SUITE} main", f"deb {main} {DEBIAN_SUITE}-updates main",
        f"deb {security} {DEBIAN_SUITE}-security main",
    ]  # fmt: skip


def _install_mmdebstrap(say: Callable[[str], None]) -> None:
    if shutil.which("mmdebstrap"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(
            "No registry gave ubuntu:22.04, and mmdebstrap is not installed to build a base without one: "
            "sudo apt-get install mmdebstrap debian-archive-keyring."
        )
    say("apt installs mmdebstrap")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "mmdebstrap", "debian-archive-keyring"],
    ):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            raise LabError(f"`{' '.join(command[:2])}` failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))
