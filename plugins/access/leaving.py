"""What a leaver could have read, and the command that makes each worthless."""

from __future__ import annotations

import re
from typing import Any

SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|KEY|CREDENTIAL|DSN|_URL$|PRIVATE", re.IGNORECASE)
SECRET_SOURCE = re.compile(r"\b(vault_|lab_secrets)")


def is_secret(name: str, raw: Any) -> bool:
    """By where its value comes from, or by its name."""
    return not isinstance(raw, str) or bool(SECRET_SOURCE.search(raw) or SECRET_NAME.search(name))


def secrets(role: str, settings: dict[str, Any], environment: str) -> list[dict[str, str]]:
    """What somebody of this role could have read, and how to rotate it, for each secret."""
    place, inventory = f"group_vars/{environment}", f"inventories/{environment}"
    vault = f"ansible-vault edit --vault-id {environment}@prompt {place}/vault.yml"
    site = f"ansible-playbook -i {inventory} playbooks/site.yml"
    found = {
        f"{name} (app_settings)": f"make a new one where it is issued, then: {vault} && {site}"
        for name in sorted(settings)
        if is_secret(name, settings[name])
    }
    if role == "admin":
        found |= {
            "the edge's private key": (
                f"a new certificate with a new key; provided: {vault} && {site}; obtained by ACME: on each edge, sudo"
                f" certbot revoke --reason keycompromise --delete-after-revoke --cert-name NAME, then {site}"
            ),
            "the app's passwords at PostgreSQL and Redis": f"{vault} && {site}",
            "the vault's password, where this person had it": (
                f"ansible-vault rekey --vault-id {environment}@prompt {place}/vault.yml"
            ),
            "the hosts' own ssh keys": (
                "on each host: sudo rm /etc/ssh/ssh_host_*_key* && sudo ssh-keygen -A && sudo systemctl restart ssh;"
                " then renew known_hosts"
            ),
            "the key of the operators' shared account, where this person had it": (
                f"another one in {place}/bootstrap.yml, then: ansible-playbook -i {inventory} playbooks/bootstrap.yml"
            ),
        }
    return [{"what": what, "rotate": rotate} for what, rotate in found.items()]


WHY_A_DEPLOYER = (
    "A deployer has no right to read a setting, but the code that a deployer ships runs with all of them:"
    " so all of them count as read."
)
WHY_AN_ADMIN = "An admin is root on the host: all that is on it counts as read."
