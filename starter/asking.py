"""The five questions. What a flag has answered is not asked; what is wrong is explained and asked again."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starter import answers, guess
from starter.answers import Host, Key, Wrong


@dataclass
class Asked:
    """The five answers."""

    domain: str
    host: Host
    app: Path
    key: Key
    networks: list[str]
    email: str
    agreed: bool


def ask(given: argparse.Namespace, root: Path) -> Asked:
    pattern = answers.key_pattern(root)
    terminal = sys.stdin.isatty() and not given.yes
    domain = _one(
        terminal, given.domain, "--domain", "1/5  The name under which users reach the app",
        "for example shop.mycompany.com", "", answers.domain,
    )  # fmt: skip
    host = _one(
        terminal, given.host, "--host",
        "2/5  The VPS: its address, whom the provider let in there (root unless you say so), and with which key",
        "for example 203.0.113.7, or ubuntu@203.0.113.7 ~/.ssh/provider", "",
        lambda text: answers.host(text, given.login, given.login_key),
    )  # fmt: skip
    app = _one(
        terminal, given.app, "--app", "3/5  The checkout of your app, the directory that has manage.py",
        "for example ../shop", "", lambda text: guess.project(Path(text)),
    )  # fmt: skip
    key, networks = _key_and_networks(terminal, given, host, pattern)
    email = _one(
        terminal, given.email, "--email",
        "5/5  Your e-mail address, for the certificate: Let's Encrypt makes it and will have it\n"
        "     By answering you agree to its terms: https://letsencrypt.org/repository",
        "for example ops@mycompany.com", "", answers.email,
    )  # fmt: skip
    return Asked(domain, host, app, key, networks, email, given.agree_terms or not given.email)


def _one[Value](
    terminal: bool, given: str, flag: str, text: str, example: str, default: str, check: Callable[[str], Value]
) -> Value:
    """One answer: the flag's, which has to be right, or what is typed, until it is."""
    if given or not terminal:
        if not (given or default):
            raise Wrong(f"{flag} is missing: give it, or answer in a terminal ({example})")
        try:
            return check(given or default)
        except Wrong as wrong:
            raise Wrong(f"{flag}: {wrong}") from None
    print(f"\n{text}\n     ({f'Enter: {default}' if default else example})")
    while True:
        try:
            return check(input("     > ").strip() or default)
        except Wrong as wrong:
            print(f"     {wrong}.")


def _key_and_networks(terminal: bool, given: argparse.Namespace, host: Host, pattern: str) -> tuple[Key, list[str]]:
    """One question, for they are one thing: with what, and from where, you get in."""
    usual = "~/.ssh/id_ed25519.pub"
    default_key = usual if Path(usual).expanduser().is_file() else ""
    default_networks = "" if given.networks else seen_from(host)
    if not terminal or (given.key and given.networks):
        key = _one(False, given.key, "--key", "", usual, default_key, lambda text: answers.public_key(text, pattern))
        networks = _one(
            False, given.networks, "--networks", "", "198.51.100.0/24", default_networks, answers.networks
        )  # fmt: skip
        return key, networks
    key_given, networks_given = given.key or default_key, given.networks or default_networks

    def both(text: str) -> tuple[Key, list[str]]:
        words = text.split()
        name = words[0] if words else ""
        if re.match(r"(ssh-|sk-|ecdsa-)", name):
            raise Wrong("Give the file of the key, not the key itself (or use --key)")
        return answers.public_key(name, pattern), answers.networks(" ".join(words[1:]) or networks_given)

    return _one(
        True, "", "", "4/5  Your public ssh key, and the networks that you come from, as the VPS sees them\n"
        "     Port 22 will be open to these and to nobody else, and root will be barred. If your address changes, the\n"
        "     provider's console is the way back: better the network of an office or a VPN",
        "for example ~/.ssh/id_ed25519.pub 198.51.100.0/24",
        f"{key_given} {networks_given}" if key_given and networks_given else "", both,
    )  # fmt: skip


def seen_from(host: Host) -> str:
    """The address that the VPS sees us come from, if ssh gets in unasked; else where this session came from."""
    if shutil.which("ssh"):
        command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=4"]
        if host.key:
            command += ["-i", str(Path(host.key).expanduser())]
        done = subprocess.run(
            [*command, "--", f"{host.user}@{host.address}", 'printf "%s" "${SSH_CONNECTION%% *}"'],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if done.returncode == 0 and re.fullmatch(r"[0-9a-fA-F.:]+", done.stdout):
            return done.stdout
    return answers.came_from()
