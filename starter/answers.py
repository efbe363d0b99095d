"""What was asked, and whether an answer can be one: each check gives the value in canonical form, or says in a sentence
what is wrong with it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
NAME = re.compile(rf"{LABEL}(\.{LABEL})+")
# No name: an address that was mistyped.
DIGITS = re.compile(r"[0-9.]+")
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]*")
ADDRESS = re.compile(r"[^@\s{}]+@([A-Za-z0-9-]+\.)+[A-Za-z]{2,}")
# Names that are kept for documentation: nobody's site, and no certificate authority takes them.
RESERVED = re.compile(r"(^|\.)(example\.(com|org|net)|example|invalid|test)$")
# What a reader would take as more than text: a template, in a file that Ansible reads.
TEMPLATE = re.compile(r"{[{%#]")

MODULE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
PATH = r"/([A-Za-z0-9._~-]+/?)*"
# What an answer has to be that stands for what is found in the checkout: a pattern, and in words.
SHAPES = {
    "app_name": (r"[a-z0-9-]{1,51}", "a name of small letters, digits and dashes, such as shop"),
    "app_django_settings_module": (MODULE, "a module such as mysite.settings"),
    "app_wsgi": (rf"{MODULE}:{MODULE}", "module and name, such as mysite.wsgi:application"),
    "app_celery_app": (rf"{MODULE}(:{MODULE})?", "a module, such as mysite, or module and name, or none"),
    "app_requirements": (r"[A-Za-z0-9_][A-Za-z0-9._/-]*", "a file in the checkout, such as requirements.lock"),
    "app_health_path": (PATH, "a path such as /healthz"),
    "app_liveness_path": (PATH, "a path such as /healthz"),
}


class Wrong(Exception):
    """An answer that cannot be one: one sentence."""


@dataclass(frozen=True)
class Host:
    """Where the VPS is, and who may log in to it as the provider left it."""

    address: str
    user: str = "root"
    key: str = ""


@dataclass(frozen=True)
class Key:
    """A public key, and the file of its private half where that is known."""

    public: str
    private: str = ""


def domain(text: str) -> str:
    value = text.strip().rstrip(".").lower()
    if "://" in value or "/" in value or ":" in value:
        raise Wrong(f"{text} is an address: the name alone is wanted, such as {value.split('://')[-1].split('/')[0]}")
    if not NAME.fullmatch(value) or DIGITS.fullmatch(value):
        raise Wrong(f"{text!r} is not a name such as shop.mycompany.com: a certificate is for a name")
    if RESERVED.search(value):
        raise Wrong(f"{value} is a name for documentation: no authority makes a certificate for it")
    return value


def host(text: str, user: str = "", key: str = "") -> Host:
    """``[account@]address [key file]``: as ssh takes it."""
    words = text.split()
    account, _, address = words[0].rpartition("@") if words else ("", "", "")
    if not address or len(words) > 2:
        raise Wrong("The address is wanted, with account and key file if need be: ubuntu@203.0.113.7 ~/.ssh/provider")
    account = user or account or "root"
    key = key or (words[1] if len(words) > 1 else "")
    if not ACCOUNT.fullmatch(account):
        raise Wrong(f"{account!r} is not the name of an account")
    try:
        address = str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        if not NAME.fullmatch(address.lower()) or DIGITS.fullmatch(address):
            raise Wrong(
                f"{address!r} is neither an IP address nor a name such as vps.mycompany.com; Slipway uses port 22"
            ) from None
        address = address.lower()
    if key and not Path(key).expanduser().is_file():
        raise Wrong(f"There is no key file {key}: give the private key that the provider's account is opened with")
    return Host(address, account, _short(key) if key else "")


def public_key(text: str, pattern: str) -> Key:
    """A public key, or the file that holds it; the file of a private key stands for the one beside it."""
    private = ""
    if not re.match(r"(ssh-|sk-|ecdsa-)\S+ ", text.strip()):
        path = Path(text.strip()).expanduser()
        if path.suffix != ".pub":
            path = path.with_name(path.name + ".pub")
        if not path.is_file():
            raise Wrong(f"There is no public key {path}: make one with `ssh-keygen -t ed25519`, or give its file")
        text = path.read_text(errors="replace")
        if path.with_suffix("").is_file():
            private = _short(str(path.with_suffix("")))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise Wrong(f"One public key is wanted, and there are {len(lines)}")
    if not re.fullmatch(pattern, lines[0]):
        raise Wrong(f"{lines[0][:30]}… is none that sshd will accept: ed25519, sk-…, or RSA of 3072 bits")
    if TEMPLATE.search(lines[0]):
        raise Wrong("The key's comment looks like a template: take the braces out")
    return Key(lines[0], private)


def key_pattern(root: Path) -> str:
    """What the role bootstrap takes for a key."""
    limits = yaml.safe_load((root / "roles/bootstrap/meta/limits.yml").read_text())
    return str(limits["bootstrap_admin_public_keys"]["pattern"])


def networks(text: str) -> list[str]:
    """Addresses and networks, apart by blanks or commas."""
    words = [word for word in re.split(r"[\s,]+", text.strip()) if word]
    if not words:
        raise Wrong("At least one network is wanted: port 22 is open to these and to nobody else")
    found = []
    for word in words:
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise Wrong(f"{word} is neither an address nor a network such as 198.51.100.0/24") from None
        if network.prefixlen < (8 if network.version == 4 else 16):
            raise Wrong(f"{word} is next to everybody: name the networks that you come from, or those of a VPN")
        found.append(str(network))
    return list(dict.fromkeys(found))


def email(text: str) -> str:
    value = text.strip()
    if not ADDRESS.fullmatch(value) or TEMPLATE.search(value):
        raise Wrong(f"{text!r} is not an e-mail address")
    if RESERVED.search(value.rpartition("@")[2].lower()):
        raise Wrong(f"{value} is an address for documentation: certificate authorities refuse it")
    return value


def named(name: str, text: str) -> str:
    """What stands for something that is found in the checkout otherwise, by the name of its variable."""
    pattern, wanted = SHAPES[name]
    if not re.fullmatch(pattern, text):
        raise Wrong(f"{text!r} is not {wanted}")
    return text


def service(text: str, flag: str, schemes: tuple[str, ...]) -> str:
    """The URL of a managed service."""
    value = text.strip()
    try:
        parts = urlsplit(value)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise Wrong(f"{flag} is not an address: {error}") from None
    if parts.scheme not in schemes or not name or port == 0:
        raise Wrong(f"{flag} is not an address such as {schemes[0]}://user:password@db.mycompany.com:25060/…")
    if TEMPLATE.search(value) or re.search(r"\s", value):
        raise Wrong(f"{flag} holds blanks or braces: write them percent-encoded")
    return value


def came_from() -> str:
    """The network that this session came from, by ssh's own word; empty when it came by no network."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    try:
        return str(ipaddress.ip_network(words[0].partition("%")[0])) if words else ""
    except ValueError:
        return ""


def _short(path: str) -> str:
    """With ~ for the home directory: others who use the file have one as well."""
    full, home = Path(path).expanduser().absolute(), Path.home()
    return f"~/{full.relative_to(home)}" if full.is_relative_to(home) else str(full)
