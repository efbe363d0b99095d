"""What a lab writes for its users: keys, known hosts, ssh_config, facts and the inventory's variables."""

from __future__ import annotations

import json
import os
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab import outbound, pki
from lab.secrets import Secrets
from lab.state import EDGE_NAME, ROOT, Lab, write

# Who comes with which key.
KEYS = ("provider", "admin", "deploy")


def ensure_keys(lab: Lab) -> None:
    for name in KEYS:
        path = lab.keys / name
        if path.is_file():
            continue
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write(path.with_name(name + ".pub"), f"{public.decode()} {name}@slipway-{lab.name}\n")
        write(path, private.decode(), 0o600)


def ensure_certificates(lab: Lab, secrets: Secrets, addresses: dict[str, dict[str, str]]) -> None:
    """Two authorities; a certificate of each for data1, of the lab's own for every host."""
    for authority, title in (("ca", "root"), ("stranger_ca", "a stranger's root")):
        if f"{authority}_certificate" not in secrets.values:
            certificate, key = pki.new_authority(f"Slipway lab {lab.name}: {title}")
            secrets.values |= {f"{authority}_certificate": certificate, f"{authority}_private_key": key}
        write(lab.ca / f"{authority.replace('_', '-')}.pem", secrets.values[f"{authority}_certificate"])
    wanted = [("ca", host, host) for host in lab.hosts] + [("stranger_ca", "data1", "stranger_data1")]
    for authority, host, name in wanted:
        names = [host, EDGE_NAME] if host == lab.edge else [host]
        places = list(addresses[host].values())
        present = secrets.values.get(f"{name}_certificate")
        if present and pki.is_fresh(present, names, places):
            continue
        signer = (secrets.values[f"{authority}_certificate"], secrets.values[f"{authority}_private_key"])
        certificate, key = pki.new_server(signer, names, places)
        secrets.values |= {f"{name}_certificate": certificate, f"{name}_private_key": key}


def write_known_hosts(lab: Lab, keys: dict[str, list[str]]) -> None:
    write(lab.known_hosts, "".join(f"{host} {key}\n" for host in lab.hosts for key in keys[host]))


def write_ssh_config(lab: Lab, addresses: dict[str, dict[str, str]]) -> None:
    names = yaml.safe_load((ROOT / "group_vars" / "all" / "main.yml").read_text())
    text = "# Written by the lab: ssh -F this-file app1\n"
    for host in lab.hosts:
        text += f"\nHost {host} {' '.join(addresses[host].values())}\n"
        text += f"  HostName {addresses[host]['ipv4']}\n  HostKeyAlias {host}\n"
    accounts = {"root": "provider", names["app_admin_user"]: "admin", names["app_deploy_user"]: "deploy"}
    for account, key in accounts.items():
        text += f'\nMatch user {account}\n  IdentityFile "{lab.keys / key}"\n'
    text += (
        "\nMatch all\n"
        f'  UserKnownHostsFile "{lab.known_hosts}"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  IdentitiesOnly yes\n"
        "  PreferredAuthentications publickey\n"
        "  CheckHostIP no\n"
        "  LogLevel ERROR\n"
    )
    write(lab.ssh_config, text)


def write_facts(lab: Lab, image: str, addresses: dict[str, dict[str, str]], port: int) -> dict[str, Any]:
    facts = {
        "name": lab.name,
        "image": image,
        "network": lab.network,
        "inventory": lab.inventory,
        "hosts": {host: {"container": lab.container(host), **addresses[host]} for host in lab.hosts},
        "edge_address": addresses[lab.edge]["ipv4"],
        "edge_name": EDGE_NAME,
        "published_port": port,
        "url": f"https://{EDGE_NAME}:{port}/",
        "ca": str(lab.ca / "ca.pem"),
        "ssh_config": str(lab.ssh_config),
        "known_hosts": str(lab.known_hosts),
        "keys": {name: str(lab.keys / name) for name in KEYS},
        "reports": str(lab.reports),
        # Where Molecule, if it is Molecule that calls, notes that it has created hosts.
        "molecule": os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ""),
    }
    write(lab.facts_file, json.dumps(facts, indent=2) + "\n")
    return facts


def write_inventory(lab: Lab, secrets: Secrets, addresses: dict[str, dict[str, str]]) -> None:
    """What inventories/lab/lab.py prints. Nothing secret is in it: it names what the file of secrets has."""
    common: dict[str, Any] = {
        "ansible_ssh_common_args": f"-F '{lab.ssh_config}'",
        "ansible_control_path_dir": str(lab.control_paths),
        "lab_name": lab.name,
        "lab_ca_certificate": secrets.values["ca_certificate"],
        "lab_stranger_ca_certificate": secrets.values["stranger_ca_certificate"],
        "lab_outbound": outbound.outbound(),
        "lab_edge_address": addresses[lab.edge]["ipv4"],
        "lab_secrets_file": str(lab.secrets),
        "lab_age_key_file": str(lab.age_key),
    }
    for key in KEYS:
        common[f"lab_{key}_private_key_file"] = str(lab.keys / key)
        common[f"lab_{key}_public_key"] = (lab.keys / f"{key}.pub").read_text().strip()
    hostvars: dict[str, dict[str, Any]] = {}
    for host in lab.hosts:
        hostvars[host] = {
            "ansible_host": addresses[host]["ipv4"],
            "lab_address": addresses[host]["ipv4"],
            "lab_address_ipv6": addresses[host].get("ipv6", ""),
            "lab_server_certificate": secrets.values[f"{host}_certificate"],
            "lab_server_private_key": f"{{{{ secrets.{host}_private_key }}}}",
        }
    hostvars["data1"]["lab_stranger_certificate"] = secrets.values["stranger_data1_certificate"]
    hostvars["data1"]["lab_stranger_private_key"] = "{{ secrets.stranger_data1_private_key }}"
    inventory = {"_meta": {"hostvars": hostvars}, "lab": {"hosts": list(lab.hosts), "vars": common}}
    write(lab.inventory_file, json.dumps(inventory, indent=2) + "\n", 0o600)
