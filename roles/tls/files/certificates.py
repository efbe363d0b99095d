#!/usr/bin/python3 -I
"""The edge's certificates on this host: made, obtained, renewed, put where nginx reads them, and looked at.

    certificates settle   have nginx show the best that is here: the provider's, or a stand-in until there is one
    certificates obtain   ask the ACME server for what is missing, then settle
    certificates renew    what the timer does: renew what is due, obtain what is missing, settle
    certificates check    look at the file and at what the edge really shows; fail with a sentence when it ends soon

nginx reads one directory, `live`, a link to a generation that holds a certificate and its key together. A new
generation is written beside it, and the link is renamed: so nginx never sees half a pair, and one that `nginx -t`
refuses is taken back. `shown` says which generation what runs has read, so a run that was cut short is finished by the
next one. Settings are in settings.json, which the role tls writes.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SETTINGS = "/etc/slipway/tls/settings.json"
CHALLENGE = "/.well-known/acme-challenge/"
LOCK_PATIENCE = 600  # seconds
AGAIN = "mend it, and run playbooks/site.yml again"
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class Trouble(Exception):
    """What cannot be done; the text is the sentence that says why."""


# What runs other programs


def run(*argv: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, check=False, env=env)
    except FileNotFoundError:
        raise Trouble(f"{argv[0]} is not on this host: run playbooks/site.yml") from None


def openssl(*argv: str, stdin: bytes = b"") -> str:
    done = run("openssl", *argv, stdin=stdin)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Trouble(f"openssl {argv[0]} failed: {said[-1] if said else done.returncode}")
    return done.stdout.decode(errors="replace")


def is_active(unit: str) -> bool:
    return run("systemctl", "--quiet", "is-active", unit).returncode == 0


# Certificates


@dataclass(frozen=True)
class Leaf:
    """What a certificate says of itself."""

    names: tuple[str, ...]
    start: float
    end: float
    subject: str
    issuer: str
    public_key: str
    ocsp: str
    fingerprint: str
    key_type: str

    @property
    def days(self) -> int:
        return int((self.end - time.time()) // 86400)

    @property
    def until(self) -> str:
        return f"{datetime.datetime.fromtimestamp(self.end, datetime.timezone.utc):%Y-%m-%d}"

    def covers(self, name: str) -> bool:
        """RFC 6125: a star is one whole leftmost label."""
        name = name.lower()
        return name in self.names or ("*." + name.partition(".")[2]) in self.names


def read_leaf(pem: bytes) -> Leaf:
    flags = ("-subject", "-issuer", "-dates", "-ocsp_uri", "-pubkey", "-fingerprint", "-sha256", "-text")
    text = openssl("x509", "-noout", "-nameopt", "RFC2253", *flags, stdin=pem)

    def field_of(pattern: str) -> str:
        found = re.search(pattern, text, re.MULTILINE)
        return found[1].strip() if found else ""

    algorithm = field_of(r"Public Key Algorithm: (\S+)")
    ocsp = field_of(r"OCSP - URI:(\S+)")
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", field_of(r"X509v3 Subject Alternative Name:.*\n(.+)"))
    key = re.search(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", text, re.DOTALL)
    return Leaf(
        names=tuple(sorted(name.lower() for name in names)),
        start=float(ssl.cert_time_to_seconds(field_of(r"^notBefore=(.+)"))),
        end=float(ssl.cert_time_to_seconds(field_of(r"^notAfter=(.+)"))),
        subject=field_of(r"^subject=(.*)"),
        issuer=field_of(r"^issuer=(.*)"),
        public_key=key[0] if key else "",
        ocsp=ocsp,
        fingerprint=field_of(r"(?i)^sha256 fingerprint=(.+)"),
        key_type="rsa" if "rsa" in algorithm.lower() else "ecdsa",
    )


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key."""

    certificate: bytes
    key: bytes

    @property
    def leaf(self) -> Leaf:
        return read_leaf(self.certificate)

    @property
    def chain(self) -> bytes:
        """Those that signed it."""
        return b"".join(CERTIFICATE.findall(self.certificate)[1:])

    def refuse_unfit(self) -> None:
        if openssl("pkey", "-pubout", stdin=self.key).strip() != self.leaf.public_key.strip():
            raise Trouble(f"the key is not that of the certificate for {', '.join(self.leaf.names)}")


def read_pair(directory: str) -> Pair | None:
    try:
        with open(f"{directory}/fullchain.pem", "rb") as one, open(f"{directory}/privkey.pem", "rb") as other:
            return Pair(one.read(), other.read())
    except FileNotFoundError:
        return None


# Settings and the files that nginx reads


@dataclass
class Settings:
    provider: str
    name: str
    names: list[str]
    key_types: list[str]
    directory: str
    webroot: str
    certbot: str
    warn_days: int
    selfsigned_days: int
    stapling: bool
    services: list[str]
    acme: dict[str, Any] = field(default_factory=dict)

    def lineage(self, key_type: str) -> str:
        return self.name if key_type == "ecdsa" else f"{self.name}-{key_type}"

    def lineage_dir(self, key_type: str) -> str:
        return f"{self.certbot}/live/{self.lineage(key_type)}"

    def renewed(self) -> list[str]:
        """The types of keys of which certbot has a certificate for us that it renews."""
        return [k for k in ("ecdsa", "rsa") if os.path.exists(f"{self.certbot}/renewal/{self.lineage(k)}.conf")]

    @property
    def live(self) -> str:
        return f"{self.directory}/live"

    @property
    def former(self) -> list[str]:
        """Where the pair was before there was `live`."""
        return [f"{self.directory}/{name}" for name in ("fullchain.pem", "privkey.pem")]


def resolvers(path: str = "/etc/resolv.conf") -> list[str]:
    with contextlib.suppress(FileNotFoundError), open(path) as stream:
        found = re.findall(r"^\s*nameserver\s+([^\s%]+)\s*$", stream.read(), re.MULTILINE)
        return [f"[{address}]" if ":" in address else address for address in found]
    return []


def render(settings: Settings, kind: str, pairs: dict[str, Pair]) -> dict[str, tuple[bytes, int]]:
    """A generation: {file: (content, mode)}. The first pair is the one that others may rely on by name."""
    files: dict[str, tuple[bytes, int]] = {}
    opening = "# Written by /usr/local/libexec/slipway/certificates with each certificate; nobody's to change.\n"
    server, stapled, trusted = opening, settings.stapling, True
    chains = b""
    for number, (key_type, pair) in enumerate(pairs.items()):
        suffix = "" if number == 0 else f"-{key_type}"
        leaf = pair.leaf
        files[f"fullchain{suffix}.pem"] = (pair.certificate, 0o644)
        files[f"privkey{suffix}.pem"] = (pair.key, 0o600)
        server += f"ssl_certificate {settings.live}/fullchain{suffix}.pem;\n"
        server += f"ssl_certificate_key {settings.live}/privkey{suffix}.pem;\n"
        chains += pair.chain
        # Without the issuer nginx has nobody to believe an answer of.
        stapled = stapled and bool(leaf.ocsp and pair.chain)
        # A stand-in, a self-signed one, and one that was provided and is its own issuer.
        trusted = trusted and leaf.issuer != leaf.subject
    if stapled:
        files["chain.pem"] = (chains, 0o644)
        server += "ssl_stapling on;\nssl_stapling_verify on;\n"
        server += f"ssl_trusted_certificate {settings.live}/chain.pem;\n"
        if resolvers():
            server += f"resolver {' '.join(resolvers())};\n"
    files["server.conf"] = (server.encode(), 0o644)
    told = "Browsers may be told to insist on HTTPS" if trusted else "No HSTS: nobody but us vouches for this one"
    value = '"1"' if trusted else '""'
    files["http.conf"] = (
        f"{opening}# {told}.\nmap $host $slipway_tls_trusted {{ default {value}; }}\n".encode(),
        0o644,
    )
    files["about.json"] = (json.dumps({"kind": kind}).encode() + b"\n", 0o644)
    return files


def kind_of_live(settings: Settings) -> str:
    try:
        with open(f"{settings.live}/about.json") as stream:
            return str(json.load(stream)["kind"])
    except (OSError, ValueError, KeyError):
        return ""


def differences(directory: str, wanted: dict[str, tuple[bytes, int]]) -> list[str]:
    """What is not as it shall be; nothing when all is."""
    try:
        present = set(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return [f"{directory} is not there"]
    found = [f"{directory}/{name} is too many" for name in sorted(present - set(wanted))]
    for name, (content, mode) in wanted.items():
        path = f"{directory}/{name}"
        if name not in present:
            found.append(f"{path} is missing")
            continue
        with open(path, "rb") as stream:
            if stream.read() != content:
                found.append(f"{path} has another content")
        state = os.stat(path)
        if state.st_mode & 0o7777 != mode:
            found.append(f"{path} has the mode 0{state.st_mode & 0o7777:o}, not 0{mode:o}")
        if (state.st_uid, state.st_gid) != (os.geteuid(), os.getegid()):
            found.append(f"{path} is not root's")
    return found


def write(path: str, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def lead(link: str, target: str) -> None:
    """Have a link lead somewhere else, in one step."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{link}.new")
    os.symlink(target, f"{link}.new")
    os.rename(f"{link}.new", link)
    keep_names(os.path.dirname(link))


def keep_names(directory: str) -> None:
    """Have the names in a directory outlast a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leads_to(settings: Settings) -> str:
    return os.readlink(settings.live) if os.path.islink(settings.live) else ""


def last_shown(settings: Settings) -> str:
    """The generation that what runs was told of, as the link has it; nothing when there was none."""
    with contextlib.suppress(FileNotFoundError), open(f"{settings.directory}/shown") as stream:
        return stream.read().strip()
    return ""


def generations(settings: Settings) -> list[int]:
    store = f"{settings.directory}/store"
    return sorted(int(name) for name in os.listdir(store) if name.isdigit()) if os.path.isdir(store) else []


# Self-signed ones


def make_selfsigned(settings: Settings, names: list[str], days: int, key_type: str) -> Pair:
    algorithm = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256") if key_type == "ecdsa" else ("rsa:2048",)
    key = f"{settings.directory}/.key-{secrets.token_hex(4)}"
    try:
        alternatives = ",".join(f"DNS:{name}" for name in names)
        certificate = openssl(
            "req", "-x509", "-nodes", "-sha256", "-newkey", *algorithm, "-keyout", key, "-days", str(days),
            "-subj", f"/CN={names[0][:64]}", "-addext", f"subjectAltName={alternatives}",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth",
        )  # fmt: skip
        with open(key, "rb") as stream:
            return Pair(certificate.encode(), stream.read())
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(key)


def selfsigned(settings: Settings, days: int, dry: bool) -> tuple[dict[str, Pair], list[str]]:
    """Those of the host's own making, made anew where they are missing, wrong or in the last third of their time."""
    pairs, lines = {}, []
    for key_type in settings.key_types:
        directory = f"{settings.directory}/selfsigned/{key_type}"
        pair = read_pair(directory)
        leaf = pair.leaf if pair else None
        if leaf is None:
            why = "there is none"
        elif set(leaf.names) != {name.lower() for name in settings.names}:
            why = "its names are others"
        elif leaf.end - time.time() < (leaf.end - leaf.start) / 3:
            why = f"it ends on {leaf.until}"
        elif leaf.end - leaf.start > (days + 1) * 86400:
            why = f"it is made for more than {days} days"
        else:
            why = ""
        if why:
            lines.append(f"a self-signed certificate ({key_type}) is made, for {why}")
            if not dry:
                os.makedirs(directory, mode=0o700, exist_ok=True)
                pair = make_selfsigned(settings, settings.names, days, key_type)
                write(f"{directory}/privkey.pem", pair.key, 0o600)
                write(f"{directory}/fullchain.pem", pair.certificate, 0o644)
        if pair:
            pairs[key_type] = pair
    return pairs, lines


# Settling: the best that is here goes live


def best(settings: Settings, dry: bool) -> tuple[str, dict[str, Pair], list[str]]:
    """(kind, pairs, what had to be made) of what the edge shall show now; no pairs: leave what it shows."""
    if settings.provider == "provided":
        pair = read_pair(f"{settings.directory}/provided")
        if pair is None and not dry:
            raise Trouble(f"{settings.directory}/provided holds no certificate: run playbooks/site.yml")
        return "provided", {"": pair} if pair else {}, []
    if settings.provider == "selfsigned":
        pairs, lines = selfsigned(settings, settings.selfsigned_days, dry)
        return "selfsigned", pairs, lines
    lineages = {kind: pair for kind in ("ecdsa", "rsa") if (pair := read_pair(settings.lineage_dir(kind)))}
    # While those that are wanted are not here yet, another one is better than none.
    wanted = {kind: lineages[kind] for kind in settings.key_types if kind in lineages} or lineages
    if wanted:
        return "acme", wanted, []
    shown = read_pair(settings.live)
    if shown and kind_of_live(settings) in ("acme", "provided") and shown.leaf.end > time.time():
        return "acme", {}, []
    # So is the one that was provided before there was `live`.
    former = None if shown else read_pair(settings.directory)
    if former and former.leaf.end > time.time():
        return "provided", {"": former}, []
    pairs, lines = selfsigned(settings, 30, dry)
    return "stand-in", pairs, lines


def stop_others(settings: Settings, dry: bool) -> list[str]:
    """What another provider's timer renewed is shown to nobody any more, and would fail for ever some day."""
    units = {"slipway-tls-renew.timer"} if settings.provider != "selfsigned" else set()
    if settings.provider != "acme" and settings.renewed():
        units.add("certbot.timer")
    stopped = [unit for unit in sorted(units) if is_active(unit)]
    for unit in stopped if not dry else []:
        run("systemctl", "disable", "--now", unit)
        run("systemctl", "stop", unit)
    return [f"{unit} is stopped, for certificates are {settings.provider} now" for unit in stopped]


def settle(settings: Settings, dry: bool = False) -> list[str]:
    """Have the edge show the best that is here; say what was (or would be) done."""
    kind, pairs, lines = best(settings, dry)
    lines += stop_others(settings, dry)
    if not pairs:
        return lines + remove_former(settings, dry)
    wanted = render(settings, kind, pairs)
    target, before = leads_to(settings), last_shown(settings)
    found = differences(settings.live, wanted)
    if not found and target == before:
        return lines + remove_former(settings, dry)
    if found:
        lines += [*found, f"the edge shows the certificate of the kind {kind}"]
    else:
        lines.append(f"{target} was put in place by a run that ended before what runs had read it")
    if dry:
        return lines
    for pair in pairs.values():
        pair.refuse_unfit()
    if found:
        target = write_generation(settings, wanted)
        lead(settings.live, target)
    try:
        try_out(settings)
    except Trouble:
        if before and before != target and os.path.isdir(f"{settings.directory}/{before}"):
            lead(settings.live, before)
            shutil.rmtree(f"{settings.directory}/{target}")
        raise
    show(settings)
    write(f"{settings.directory}/shown", f"{target}\n".encode(), 0o644)
    for old in generations(settings):
        if f"store/{old}" not in (target, before):
            shutil.rmtree(f"{settings.directory}/store/{old}")
    return lines + remove_former(settings, dry)


def write_generation(settings: Settings, wanted: dict[str, tuple[bytes, int]]) -> str:
    """A new one, complete on the disk; where the link shall lead."""
    target = f"store/{max(generations(settings), default=0) + 1}"
    directory = f"{settings.directory}/{target}"
    os.makedirs(directory, mode=0o755)
    for name, (content, mode) in wanted.items():
        write(f"{directory}/{name}", content, mode)
    for place in (directory, os.path.dirname(directory)):
        keep_names(place)
    return target


def try_out(settings: Settings) -> None:
    """Have nginx, where it runs, judge what it would read."""
    if "nginx" not in settings.services or not is_active("nginx"):
        return
    tested = run("nginx", "-t")
    if tested.returncode:
        said = [line for line in tested.stderr.decode(errors="replace").splitlines() if "[emerg]" in line]
        raise Trouble(
            "the new certificate, or nginx's configuration, is refused by nginx -t; what was served before is"
            f" served on: {said[0] if said else 'see nginx -t'}"
        )


def show(settings: Settings) -> None:
    """Have what runs read the new generation. What does not run reads it when it starts."""
    for service in filter(is_active, settings.services):
        done = run("systemctl", "reload", service)
        if done.returncode:
            raise Trouble(f"systemctl reload {service} failed: {done.stderr.decode(errors='replace').strip()}")


def remove_former(settings: Settings, dry: bool) -> list[str]:
    """The pair that lay here before there was `live` goes, once no configuration names it."""
    left = [path for path in settings.former if os.path.exists(path)]
    if not left or not os.path.exists(settings.live):
        return []
    try:
        read = run("nginx", "-T")
    except Trouble:
        # There is no nginx yet that could tell.
        return []
    if read.returncode or any(path.encode() in read.stdout for path in left):
        return []
    for path in left if not dry else []:
        os.unlink(path)
    return [f"{path} is removed, for nothing reads it any more" for path in left]


# ACME


def why_obtain(settings: Settings, key_type: str) -> str:
    """Why a certificate has to be asked for; nothing when the one that is here will do."""
    pair = read_pair(settings.lineage_dir(key_type))
    if pair is None:
        return "there is none"
    leaf = pair.leaf
    if set(leaf.names) != {name.lower() for name in settings.names}:
        return f"its names are {', '.join(leaf.names)}"
    if leaf.key_type != key_type:
        return f"its key is {leaf.key_type}"
    if leaf.end < time.time():
        return f"it ended on {leaf.until}"
    try:
        with open(f"{settings.certbot}/renewal/{settings.lineage(key_type)}.conf") as stream:
            parameters = dict(re.findall(r"^(\w+) = (.*)$", stream.read(), re.MULTILINE))
    except FileNotFoundError:
        return "nothing says how it is renewed"
    if parameters.get("server") != settings.acme["directory"]:
        return f"it is of {parameters.get('server')}"
    if parameters.get("authenticator") != "webroot":
        return "it is renewed in another way"
    return ""


def explain(output: str) -> str:
    """What a failed certbot said, in one line: the domain and the server's reason where it gave one."""
    problem = re.findall(
        r"Domain:\s*(\S+)\s+Type:\s*(\S+)\s+Detail:\s*(.+?)(?=\n\s*\n|\n\s*Domain:|\Z)", output, re.DOTALL
    )
    if problem:
        told = dict.fromkeys(f"{domain}: {' '.join(detail.split())} ({kind})" for domain, kind, detail in problem)
        return "; ".join(told)
    said = re.search(r"(urn:ietf:params:acme:error:\w+) :: (.+)", output)
    if said:
        return f"{said[2].strip()} ({said[1]})"
    if re.search(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", output):
        return "its own certificate is not to be trusted (a private authority's belongs in tls_acme_ca_certificates)"
    if re.search(
        r"NewConnectionError|ConnectionError|Max retries|Connection refused|No route to host|[Tt]imed? ?out", output
    ):
        return "it cannot be reached (is it down, or does firewall_outbound not let this host out to it?)"
    failed = re.findall(r"Failed to renew certificate \S+ with error: (.+)", output)
    if failed:
        return "; ".join(dict.fromkeys(" ".join(line.split()) for line in failed))
    noise = re.compile(r"^(Saving debug log|Ask for help|Please see|- - |.*logfile|.*log file|\s*$)", re.IGNORECASE)
    lines = [line.strip() for line in output.splitlines() if not noise.match(line.strip())]
    return lines[-1] if lines else "certbot gave no reason"


def certbot(settings: Settings, *arguments: str, options: bool = True) -> tuple[int, str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    if settings.acme.get("ca_bundle"):
        environment["REQUESTS_CA_BUNDLE"] = settings.acme["ca_bundle"]
    # Account and directory come from a file that only root reads: an external account's key is a secret.
    given = ("--config", settings.acme["options"]) if options else ()
    for _ in range(3):
        done = run("certbot", *arguments, *given, "--non-interactive", "--no-directory-hooks", env=environment)
        output = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        # A server may refuse a good nonce at any time (RFC 8555, 6.5); certbot asks again once, and that may not do.
        if done.returncode == 0 or "acme:error:badNonce" not in output:
            break
    return done.returncode, output


def ask(name: str, path: str, expected: str) -> str:
    """What is wrong with this host's answer to a plain request; nothing when it is the expected one."""
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": name, "Connection": "close"})
        answer = connection.getresponse()
        return "" if answer.read() == expected.encode() else f"it answers {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        return f"{error!r}"
    finally:
        connection.close()


def refuse_unanswered(settings: Settings) -> None:
    """Ask this host's nginx as the ACME server will: what fails here would fail there, and count there."""
    if not is_active("nginx"):
        raise Trouble(
            "nginx does not run here, so nobody would answer the ACME server: run the whole playbooks/site.yml"
        )
    token = f"slipway-{secrets.token_hex(8)}"
    directory = f"{settings.webroot}{CHALLENGE}"
    os.makedirs(directory, mode=0o755, exist_ok=True)
    write(f"{directory}{token}", token.encode(), 0o644)
    try:
        deadline = time.monotonic() + 5
        for name in settings.names:
            # nginx may still be about to take up what it was just told.
            while (said := ask(name, f"{CHALLENGE}{token}", token)) and time.monotonic() < deadline:
                time.sleep(0.2)
            if said:
                raise Trouble(
                    f"nginx here does not serve http://{name}{CHALLENGE} from {settings.webroot}: {said}; {AGAIN}"
                )
    finally:
        os.unlink(f"{directory}{token}")


def request(settings: Settings, key_type: str, server: str, *arguments: str) -> None:
    kind = ("--elliptic-curve", "secp256r1") if key_type == "ecdsa" else ("--rsa-key-size", "2048")
    code, output = certbot(
        settings, "certonly", "--webroot", "--webroot-path", settings.webroot, "--server", server,
        "--cert-name", settings.lineage(key_type), "--key-type", key_type, *kind,
        "--renew-with-new-domains", "--force-renewal", "--preferred-challenges", "http",
        *(word for name in settings.names for word in ("--domain", name)), *arguments,
    )  # fmt: skip
    if code:
        raise Trouble(
            f"the ACME server {server} gave no certificate for {', '.join(settings.names)}."
            f" Its reason: {explain(output)}."
            f" What was served before is served on; {AGAIN}"
        )


def rehearse(settings: Settings) -> None:
    """The whole thing with the staging server, whose limits are generous, in a place of its own."""
    place = f"{settings.acme['state']}/rehearsal"
    places = [word for part in ("config", "work", "logs") for word in (f"--{part}-dir", f"{place}/{part}")]
    try:
        request(settings, settings.key_types[0], settings.acme["staging_directory"], *places)
    finally:
        # The account stays, what it got does not.
        for part in ("live", "archive", "renewal", "csr", "keys"):
            shutil.rmtree(f"{place}/config/{part}", ignore_errors=True)


def obtain(settings: Settings, dry: bool = False) -> list[str]:
    """Ask for what is missing. What fails leaves what is served alone."""
    if settings.provider != "acme":
        return settle(settings, dry)
    reasons = {kind: why for kind in settings.key_types if (why := why_obtain(settings, kind))}
    lines = [f"a certificate ({kind}) is asked for, for {why}" for kind, why in reasons.items()]
    # They would be renewed for ever, and shown to nobody.
    idle = [kind for kind in settings.renewed() if kind not in settings.key_types]
    if dry:
        return lines + [f"the certificate ({kind}) that is no longer wanted is removed" for kind in idle]
    if reasons:
        refuse_unanswered(settings)
        if settings.acme["staging_first"]:
            rehearse(settings)
    for kind in reasons:
        request(settings, kind, settings.acme["directory"])
    for kind in idle:
        lines += settle(settings)
        code, output = certbot(settings, "delete", "--cert-name", settings.lineage(kind), options=False)
        if code:
            raise Trouble(f"the certificate ({kind}) that is no longer wanted stays: {explain(output)}; {AGAIN}")
        lines.append(f"the certificate ({kind}) that is no longer wanted is removed")
    return lines + settle(settings)


def renew(settings: Settings) -> list[str]:
    """What the timer does. What is due comes first: a new name that fails must not keep the old ones from it."""
    lines, troubles, foreign = [], [], False
    if settings.provider == "acme":
        if any(os.path.exists(settings.lineage_dir(kind)) for kind in ("ecdsa", "rsa")):
            code, output = certbot(settings, "renew", "--no-random-sleep-on-renew", options=False)
            mine = {settings.lineage(kind) for kind in ("ecdsa", "rsa")}
            failed = set(re.findall(r"Failed to renew certificate (\S+) with error:", output))
            # A former app_domain's, or one that somebody obtained by hand: it holds nothing of ours up.
            foreign = code != 0 and bool(failed) and not failed & mine
            if foreign:
                troubles.append(
                    f"{', '.join(sorted(failed))} could not be renewed, which the edge does not show:"
                    f" {explain(output)}. If nobody wants it any more: certbot delete --cert-name NAME"
                )
            elif code:
                troubles.append(
                    f"the certificate for {settings.name} could not be renewed. The ACME server"
                    f" {settings.acme['directory']}: {explain(output)}. The one that is here is served on"
                )
        try:
            lines += settle(settings)
            if foreign or not troubles:
                lines += obtain(settings)
        except Trouble as trouble:
            troubles.append(str(trouble))
    elif settings.provider == "selfsigned":
        lines += settle(settings)
    if troubles:
        raise Trouble("; ".join(troubles))
    return lines


# Looking


def served(name: str, key_type: str, port: int = 443, address: str = "127.0.0.1") -> Leaf:
    """The certificate that the edge shows to who asks for a name and understands this type of key only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if key_type:
        # TLS 1.3 does not tell types of keys apart by its suites.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+aRSA" if key_type == "rsa" else "ECDHE+ECDSA")
    try:
        with (
            socket.create_connection((address, port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as shaken,
        ):
            der = shaken.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError) as error:
        raise Trouble(
            f"the edge does not shake hands for {name} on port {port}: {error} (does nginx run, and is the name"
            " app_domain or among nginx_aliases?)"
        ) from None
    return read_leaf(ssl.DER_cert_to_PEM_cert(der or b"").encode())


def ends_soon(settings: Settings, leaf: Leaf, what: str) -> str:
    if leaf.days >= settings.warn_days:
        return ""
    when = f"ended on {leaf.until}" if leaf.end < time.time() else f"ends on {leaf.until}, in {leaf.days} days"
    todo = {
        "acme": "see why it is not renewed: journalctl -u certbot.service, then systemctl start certbot.service",
        "selfsigned": "see why it is not renewed: journalctl -u slipway-tls-renew.service",
        "provided": "get a new one into tls_certificate and tls_private_key, and run playbooks/site.yml",
    }[settings.provider]
    return f"{what} {when}: {todo}"


def check(settings: Settings) -> list[str]:
    """Look at the file, and at what the edge shows by each name. The first trouble is the sentence."""
    pair = read_pair(settings.live)
    if pair is None:
        raise Trouble(f"{settings.live} holds no certificate: run playbooks/site.yml")
    if kind_of_live(settings) == "stand-in":
        raise Trouble(
            "the edge shows a stand-in that no browser trusts, since no certificate was obtained yet: see why with"
            " systemctl start certbot.service and journalctl -u certbot.service"
        )
    expected = {pair.leaf.key_type: pair.leaf}
    for kind in ("ecdsa", "rsa"):
        with contextlib.suppress(FileNotFoundError), open(f"{settings.live}/fullchain-{kind}.pem", "rb") as stream:
            expected[kind] = read_leaf(stream.read())
    for leaf in expected.values():
        troubles = [ends_soon(settings, leaf, f"the certificate for {settings.name}")]
        troubles += [f"the certificate does not cover {n}: {AGAIN}" for n in settings.names if not leaf.covers(n)]
        for trouble in filter(None, troubles):
            raise Trouble(trouble)
    for name in settings.names:
        for kind, leaf in expected.items():
            shown = served(name, kind)
            trouble = ends_soon(settings, shown, f"the certificate that the edge shows for {name}")
            if not trouble and shown.fingerprint != leaf.fingerprint:
                trouble = f"the edge shows for {name} another certificate than the one here: systemctl reload nginx"
            if trouble:
                raise Trouble(trouble)
    soonest = min(expected.values(), key=lambda leaf: leaf.end)
    return [f"the edge shows a certificate for {', '.join(settings.names)} until {soonest.until}, {soonest.days} days"]


# The command


@contextlib.contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """One at a time: a run of the playbook and the timer may meet."""
    # Whoever could open it could hold it, and so keep certificates from being renewed.
    with open(os.open(f"{settings.directory}/.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Trouble(f"another run holds {stream.name} since more than {LOCK_PATIENCE} s") from None
                time.sleep(0.5)
        yield


def act(verb: str, settings: Settings, dry: bool) -> list[str]:
    if verb == "check":
        return check(settings)
    if dry:
        return {"settle": settle, "obtain": obtain}[verb](settings, dry=True)
    with alone(settings):
        return {"settle": settle, "obtain": obtain, "renew": renew}[verb](settings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["settle", "obtain", "renew", "check"])
    parser.add_argument("--settings", default=SETTINGS)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done (settle, obtain)")
    parser.add_argument("--json", action="store_true", help="one JSON object, for the playbook")
    options = parser.parse_args()
    os.umask(0o022)
    try:
        with open(options.settings) as stream:
            settings = Settings(**json.load(stream))
        lines = act(options.verb, settings, options.dry_run)
    except Trouble as trouble:
        sentence = f"{str(trouble)[0].upper()}{str(trouble)[1:]}."
        print(json.dumps({"failed": True, "msg": sentence}) if options.json else sentence)
        return 1
    except FileNotFoundError as error:
        print(f"{error.filename} is not there: run playbooks/site.yml.", file=sys.stderr)
        return 1
    print(json.dumps({"lines": lines}) if options.json else "\n".join(lines) or "nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
