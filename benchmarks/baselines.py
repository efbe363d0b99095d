"""What the bench compares with: a hand-written ssh script, and Capistrano, each doing our steps on the same host."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.site import ADMIN, EDGE, Site
from benchmarks.story import ROOT, Ran, Story

PLACE = Path("benchmarks/baseline")
# Capistrano's ssh is a library of its own. Debian's knows no key exchange that a hardened sshd offers, without a gem
# that Debian does not have: so it gets a second sshd, that is there for the bench alone.
SSHD = "run-slipway-bench-sshd"
SSHD_PORT = 2222
OPEN = f"""\
systemd-run --quiet --collect --unit={SSHD} /usr/sbin/sshd -D -p {SSHD_PORT} -o PidFile=none \
  -o KexAlgorithms=curve25519-sha256,ecdh-sha2-nistp256
iptables -I INPUT -p tcp --dport {SSHD_PORT} -j ACCEPT
"""
CLOSE = f"""\
if systemctl is-active -q {SSHD}; then systemctl stop {SSHD}; fi
while iptables -D INPUT -p tcp --dport {SSHD_PORT} -j ACCEPT 2>/dev/null; do :; done
"""


class Baseline(Protocol):
    """Somebody else's way to do the same."""

    title: str

    def ready(self) -> AbstractContextManager[None]: ...
    def deploy(self, artifact: str) -> Ran: ...
    def rollback(self, artifact: str, /) -> Ran: ...


def on_host(site: Site, word: str, name: str, owner: str = "") -> None:
    """Run one word of host.sh as root."""
    text = (ROOT / PLACE / "host.sh").read_text(encoding="utf-8")
    site.sudo(f"BASELINE={name} OWNER={shlex.quote(owner)}\nset -- {word}\n{text}")


class Script:
    title = "script"

    def __init__(self, site: Site, story: Story) -> None:
        self.site, self.story = site, story
        self.environment = {"SSH_CONFIG": site.facts["ssh_config"], "ADMIN": ADMIN}

    @contextmanager
    def ready(self) -> Iterator[None]:
        on_host(self.site, "remove", "baseline")
        on_host(self.site, "prepare", "baseline")
        try:
            yield
        finally:
            on_host(self.site, "remove", "baseline")

    def run(self, name: str, *arguments: str) -> Ran:
        return self.story.run([PLACE / f"{name}.sh", *arguments], self.environment)

    def deploy(self, artifact: str) -> Ran:
        return self.run("deploy", artifact)

    def rollback(self, artifact: str, /) -> Ran:
        """Back to what was deployed from this artifact."""
        return self.run("rollback", Path(artifact).name.removesuffix(".tar.gz"))


class Capistrano:
    title = "Capistrano"
    name = "capistrano"

    def __init__(self, site: Site, story: Story) -> None:
        self.site, self.story = site, story
        facts = site.facts
        self.environment = {
            "ROOT": f"/opt/{self.name}", "UNIT": self.name, "CACHE": f"/var/cache/{self.name}-uv", "DOMAIN": site.name,
            "ADDRESS": site.address, "PORT": str(SSHD_PORT), "ADMIN": ADMIN, "HOST": EDGE,
            "KEY": facts["keys"]["admin"], "KNOWN_HOSTS": facts["known_hosts"],
        }  # fmt: skip

    @contextmanager
    def ready(self) -> Iterator[None]:
        self.remove()
        on_host(self.site, "prepare", self.name, ADMIN)
        self.site.sudo(OPEN)
        try:
            yield
        finally:
            self.remove()

    def remove(self) -> None:
        self.site.sudo(CLOSE)
        on_host(self.site, "remove", self.name)

    def deploy(self, artifact: str) -> Ran:
        return self.story.run([PLACE / "capistrano.sh", "deploy", artifact], self.environment)

    def rollback(self, _artifact: str, /) -> Ran:
        """Back to the one before, which it finds by itself."""
        return self.story.run([PLACE / "capistrano.sh", "rollback"], self.environment)


def install_capistrano() -> str:
    """Have Debian's Capistrano where it can be had; say why not."""
    if shutil.which("cap"):
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return (
            "Capistrano is not here, and is not compared with"
            " (on Debian and Ubuntu: apt-get install capistrano ruby-ed25519)"
        )
    words = ["apt-get", "-qq", "-y", "install", "--no-install-recommends", "capistrano", "ruby-ed25519"]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        return f"Capistrano could not be installed, and is not compared with ({last[:200]})"
    return ""
