"""The inventory and the variables, as files that a person goes on with."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starter.answers import Host, Key
from starter.guess import Guess
from starter.handed import Handed

PLAIN = re.compile(r"[A-Za-z_/~][A-Za-z0-9_./~:-]*(?<!:)")
KEYWORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
# Keys that ssh tries by itself.
USUAL_KEYS = {f"~/.ssh/id_{kind}" for kind in ("ed25519", "ed25519_sk", "rsa", "ecdsa", "ecdsa_sk")}
PORTS = {"database": 5432, "redis": 6379}
APP = ("app_name", "app_directory", "app_django_settings_module", "app_wsgi", "app_celery_app", "app_requirements",
       "app_health_path", "app_liveness_path")  # fmt: skip


@dataclass
class Answers:
    """What was answered, in canonical form."""

    environment: str
    domain: str
    host: Host
    key: Key
    networks: list[str]
    email: str
    agreed: bool
    guess: Guess
    handed: Handed
    deploy_key: str
    celery: bool
    local_data: bool
    urls: dict[str, str] = field(default_factory=dict)  # database and redis, where they are elsewhere
    authority: str = ""  # of those, PEM


def quoted(value: str) -> str:
    """A YAML scalar that is this text and nothing else."""
    if PLAIN.fullmatch(value) and value.lower() not in KEYWORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def setting(name: str, value: str) -> str:
    """An entry of app_settings; a long address is continued after its @."""
    text = quoted(value)
    if len(text) > 110 and "@" in text:
        text = text.replace("@", "@\\\n    ", 1)
    return f"  {name}: {text}\n"


def listed(values: Iterable[str]) -> str:
    return "[" + ", ".join(quoted(value) for value in values) + "]"


def files(answers: Answers) -> dict[str, tuple[str, str]]:
    """Each file's path in the checkout, why it is written, and what it holds."""
    variables = f"group_vars/{answers.environment}"
    found = {
        f"inventories/{answers.environment}/hosts.yml": ("who is who, and how to reach each", hosts(answers)),
        f"{variables}/main.yml": ("the app, its settings, and where you come from", main(answers)),
        f"{variables}/bootstrap.yml": ("your key, and the account that the provider left", bootstrap(answers)),
        f"{variables}/deployers.yml": ("the key of what deploys", deployers(answers)),
        f"{variables}/release.yml": ("where that key is on this machine", release(answers)),
        f"{variables}/tls.yml": ("where the certificate comes from", tls(answers)),
        f"{variables}/firewall.yml": ("what goes out beside the defaults", firewall(answers)),
        f"{variables}/envdir.yml": ("the authority that the app trusts for its data", envdir(answers)),
    }
    if answers.local_data:
        why = "on the host itself, where nobody else reaches it"
        found[f"{variables}/postgresql.yml"] = (f"PostgreSQL, {why}", data("postgresql"))
        found[f"{variables}/redis.yml"] = (f"Redis, {why}", data("redis"))
    return {path: (why, content) for path, (why, content) in found.items()}


def hosts(answers: Answers) -> str:
    name = answers.domain
    groups = {
        "edge": ("The edge: nginx, TLS, static files. It is what the name resolves to.", True),
        "app": ("Answers web requests (gunicorn).", True),
        "worker": ("Works off the queue (Celery).", answers.celery),
        "scheduler": ("The one host that schedules (Celery beat).", answers.celery),
        "data": ("PostgreSQL and Redis. With managed ones nobody is in this group.", answers.local_data),
    }
    text = (
        f"---\n# {answers.environment}: who is who. Written by `make init`, yours from now on. Variables do not"
        f" belong here:\n# see group_vars/{answers.environment}/. With more than one host: docs/ops/fleet.md.\n"
    )
    for group, (why, member) in groups.items():
        text += f"\n# {why}\n{group}:\n"
        text += f"  hosts:\n    {name}:\n" if member else "  hosts: {}\n"
    text += f"\n# All of them, with how to reach each.\n{answers.environment}:\n  hosts:\n    {name}:\n"
    text += f"      ansible_host: {quoted(answers.host.address)}\n"
    if answers.key.private and answers.key.private not in USUAL_KEYS:
        text += f"      ansible_ssh_private_key_file: {quoted(answers.key.private)}\n"
    return text


def main(answers: Answers) -> str:
    guess, handed = answers.guess, answers.handed
    text = (
        f"---\n# The app in {answers.environment}. Written by `make init`, yours from now on. What each variable is"
        f" for: group_vars/all/main.yml.\n\napp_domain: {answers.domain}\n\n"
        "# Where you and your CI come from, as the host sees it. Port 22 is open to these and to nobody else: keep it\n"
        "# right, or the way back is your provider's console.\n"
        f"app_operator_networks: {listed(answers.networks)}\n\n"
        "# What was found in the app's checkout, and where.\n"
    )
    for name in APP:
        if name in guess.values:
            text += f"# {guess.sources[name]}\n{name}: {quoted(guess.values[name])}\n"
    text += (
        "\n# Where secrets are (docs/ops/secrets.md). To read and to change them: sops edit, with this file.\n"
        f"secrets_source: {{kind: sops, file: secrets/{answers.environment}.sops.yml}}\n"
        "\n# The app's settings: what its settings module reads from the environment. What is secret is there,\n"
        f"# below app: {', '.join(handed.made)}.\n"
        "app_settings:\n"
    )
    text += "".join(setting(name, value) for name, value in handed.settings.items())
    if handed.optional:
        text += "  # It reads these as well, and starts without:\n"
        text += "".join(f"  # {name}:\n" for name in sorted(handed.optional))
    text += "\n# What a build sees in their place: enough for `collectstatic`, and worth nothing to a thief.\n"
    text += "app_build_settings:\n"
    return text + "".join(f"  {name}: {quoted(value)}\n" for name, value in handed.build.items())


def bootstrap(answers: Answers) -> str:
    text = (
        "---\n# The operators' keys. The account's file holds these and no other.\n"
        f"bootstrap_admin_public_keys:\n  - {quoted(answers.key.public)}\n"
        "# The account that the provider left on the bare host.\n"
        f"bootstrap_first_user: {quoted(answers.host.user)}\n"
    )
    if answers.host.key:
        text += f"bootstrap_first_private_key_file: {quoted(answers.host.key)}\n"
    if answers.key.private and answers.key.private not in USUAL_KEYS:
        text += f"bootstrap_admin_private_key_file: {quoted(answers.key.private)}\n"
    return text


def deployers(answers: Answers) -> str:
    return (
        "---\n# The key of what deploys: your CI's. People have accounts of their own: group_vars/all/people.yml.\n"
        f"deployers_public_keys:\n  - {quoted(answers.deploy_key)}\n"
    )


def release(answers: Answers) -> str:
    path = f"{{{{ playbook_dir | dirname }}}}/.vault/{answers.environment}-deploy-key"
    return (
        "---\n# The private half of the key in deployers.yml, on your machine. CI has it elsewhere, and says so.\n"
        f"release_deploy_private_key_file: {quoted(path)}\n\n"
        "# Who is told of a deploy and a rollback (docs/ops/notices.md). Their addresses are secrets.\n"
        "# release_notices:\n"
        '#   - {kind: slack, url: "{{ secrets.slack_webhook }}"}\n'
    )


def tls(answers: Answers) -> str:
    return (
        "---\n# Where certificates come from (roles/tls/defaults/main.yml): Let's Encrypt, renewed by the host.\n"
        f"tls_provider: acme\ntls_acme_email: {quoted(answers.email)}\n"
        "# Whether you have read and agree to https://letsencrypt.org/repository\n"
        f"tls_acme_agree_terms: {'true' if answers.agreed else 'false'}\n"
    )


def firewall(answers: Answers) -> str:
    text = (
        "---\n# What the app's host shares with others: it has nobody to share with.\nfirewall_private_networks: []\n\n"
        "# What goes out beside the defaults (roles/firewall/defaults/main.yml): mail, payment, storage. An entry:\n"
        "#   - {name: mail, purpose: the app's mail, ports: [587], names: [smtp.mycompany.com], groups: [app]}\n"
    )
    entries = ""
    for name, url in answers.urls.items():
        parts = urlsplit(url)
        where = f"networks: [{quoted(parts.hostname or '')}]"
        if not _address(parts.hostname or ""):
            where = f"names: [{quoted(parts.hostname or '')}]"
        entries += (
            f"  - name: {name}\n    purpose: the app's {'database' if name == 'database' else 'Redis'}\n"
            f"    ports: [{parts.port or PORTS[name]}]\n    {where}\n    groups: [app, worker, scheduler]\n"
        )
    return text + (f"firewall_outbound_extra:\n{entries}" if entries else "firewall_outbound_extra: []\n")


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def envdir(answers: Answers) -> str:
    text = "---\n# The authority of the app's PostgreSQL and Redis, in PEM; the app trusts no other.\n"
    if answers.local_data:
        return text + 'envdir_ca_certificates: ["{{ secrets.data_authority }}"]\n'
    if not answers.authority:
        return text + "envdir_ca_certificates: []\n"
    return (
        text
        + "envdir_ca_certificates:\n  - |\n"
        + "".join(f"    {line}\n" for line in answers.authority.strip().splitlines())
    )


def data(role: str) -> str:
    text = (
        f"---\n# On the app's own host, and for it alone. It has no backup: see roles/{role}/README.md.\n"
        f"{role}_listen_addresses: [127.0.0.1]\n"
    )
    if role == "postgresql":
        text += "postgresql_client_networks: [127.0.0.1/32]\n"
    password = "postgres" if role == "postgresql" else "redis"
    return text + (
        f"{role}_tls_names: [localhost]\n"
        f'{role}_tls_certificate: "{{{{ secrets.data_certificate }}}}"\n'
        f'{role}_tls_private_key: "{{{{ secrets.data_private_key }}}}"\n'
        f'{role}_app_password: "{{{{ secrets.{password}_app_password }}}}"\n'
    )
