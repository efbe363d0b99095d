"""What a leaver could have read, and the command that makes each worthless."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|KEY|CREDENTIAL|DSN|_URL$|PRIVATE", re.IGNORECASE)
SECRET_SOURCE = re.compile(r"\b(vault_|secrets[.\[])")


def is_secret(name: str, raw: Any) -> bool:
    """By where its value comes from, or by its name."""
    return not isinstance(raw, str) or bool(SECRET_SOURCE.search(raw) or SECRET_NAME.search(name))


@dataclass(frozen=True)
class Kept:
    """Where secrets are: how one is changed, how somebody is shut out, and what the app is handed by itself."""

    editing: str
    closing: str
    of_app: Collection[str] = ()


def beside(environment: str) -> Kept:
    """Where there is no source: secrets are vaulted among the variables."""
    vault = f"--vault-id {environment}@prompt group_vars/{environment}/vault.yml"
    return Kept(f"ansible-vault edit {vault}", f"ansible-vault rekey {vault}")


def secrets(role: str, settings: dict[str, Any], environment: str, kept: Kept) -> list[dict[str, str]]:
    """What somebody of this role could have read, and how to rotate it, for each secret."""
    place, inventory = f"group_vars/{environment}", f"inventories/{environment}"
    site = f"ansible-playbook -i {inventory} playbooks/site.yml"
    found = {
        f"{name} (app_settings)": f"make a new one where it is issued, then: {kept.editing} && {site}"
        for name in sorted(settings)
        if is_secret(name, settings[name])
    }
    found |= {
        f"{name} (app_secrets)": f"make a new one where it is issued, then: {kept.editing} && {site}"
        for name in sorted(kept.of_app)
    }
    if role == "admin":
        found |= {
            "the edge's private key": (
                f"a new certificate with a new key; provided: {kept.editing} && {site}; obtained by ACME: on each edge,"
                f" sudo certbot revoke --reason keycompromise --delete-after-revoke --cert-name NAME, then {site}"
            ),
            "the app's passwords at PostgreSQL and Redis": f"{kept.editing} && {site}",
            f"what opens the secrets of {environment}, where this person had it": kept.closing,
            "the hosts' own ssh keys": (
                "on each host: sudo rm /etc/ssh/ssh_host_*_key* && sudo ssh-keygen -A && sudo systemctl restart ssh;"
                " then renew known_hosts"
            ),
            "the key of the operators' shared account, where this person had it": (
                f"another one in {place}/bootstrap.yml, then: ansible-playbook -i {inventory} playbooks/bootstrap.yml"
            ),
        }
    return [{"what": what, "rotate": rotate} for what, rotate in found.items()]


def remaining(environment: str) -> str:
    """What says later which of them have not been renewed."""
    return (
        "Which of them are left to be renewed, once people.yml says that this person has left:"
        f" ansible-playbook -i inventories/{environment} playbooks/secrets_report.yml"
    )


WHY_A_DEPLOYER = (
    "A deployer has no right to read a setting, but the code that a deployer ships runs with all of them:"
    " so all of them count as read."
)
WHY_AN_ADMIN = "An admin is root on the host: all that is on it counts as read."
