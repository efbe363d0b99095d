"""Check on the controller what an ACME server would be asked with, before any host is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_acme
short_description: Check on the controller what an ACME server would be asked with
description:
  - Fails with one sentence unless the server, the account and the names are such that it can work. It changes nothing
    and connects to nothing.
options:
  directory:
    description: The ACME server's directory.
    type: str
    required: true
  staging_directory:
    description: That of the rehearsal; empty without one.
    type: str
    default: ""
  email:
    description: The account's address.
    type: str
    default: ""
  agree_terms:
    description: Whether the server's terms are agreed to.
    type: bool
    default: false
  names:
    description: Names that the certificate shall cover.
    type: list
    elements: str
    required: true
  ca_certificates:
    description: Authorities that the server's own certificate may be of (PEM).
    type: list
    elements: str
    default: []
  eab_key_id:
    description: The external account's key id.
    type: str
    default: ""
  eab_hmac_key:
    description: The external account's key.
    type: str
    default: ""
"""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from ansible.plugins.action import ActionBase
from cryptography import x509

HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+", re.I)
WHERE = "group_vars/<environment>/tls.yml"
SPEC: dict[str, Any] = {
    "directory": {"type": "str", "required": True},
    "staging_directory": {"type": "str", "default": ""},
    "email": {"type": "str", "default": ""},
    "agree_terms": {"type": "bool", "default": False},
    "names": {"type": "list", "elements": "str", "required": True},
    "ca_certificates": {"type": "list", "elements": "str", "default": []},
    "eab_key_id": {"type": "str", "default": ""},
    "eab_hmac_key": {"type": "str", "default": "", "no_log": True},
}


def name_problem(name: str) -> str:
    if "*" in name:
        return (
            f"tls_names has {name}: a wildcard is proved by DNS, and this role proves names by HTTP; name each host, or"
            " provide a certificate (tls_provider: provided)"
        )
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return f"tls_names has {name}: an address gets no certificate here; give the name that users type"
    if not HOST_NAME.fullmatch(name):
        return f"tls_names has {name!r}, which is no full host name such as www.example.com"
    return ""


def problem(args: dict[str, Any]) -> str:
    """The first thing that is wrong, as a sentence; nothing when all is well."""
    for variable, url in (("directory", args["directory"]), ("staging_directory", args["staging_directory"])):
        if url and (urlsplit(url).scheme != "https" or not urlsplit(url).hostname):
            return f"tls_acme_{variable} is {url}, and an ACME directory is an https:// address: set it in {WHERE}"
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", args["email"]):
        said = f"is {args['email']}" if args["email"] else "is not set"
        return (
            f"tls_acme_email {said}: the ACME server wants the address of who answers for the certificate; set it in"
            f" {WHERE}, or choose tls_provider: provided or selfsigned"
        )
    if not args["agree_terms"]:
        return (
            f"tls_acme_agree_terms is false: read the terms that {args['directory']} names (for Let's Encrypt:"
            f" https://letsencrypt.org/repository), and set it to true in {WHERE}"
        )
    for name in args["names"]:
        if said := name_problem(name):
            return said
    for number, pem in enumerate(args["ca_certificates"], 1):
        try:
            x509.load_pem_x509_certificates(pem.encode())
        except ValueError:
            return f"tls_acme_ca_certificates holds no PEM certificate in its entry {number}: set it in {WHERE}"
    if bool(args["eab_key_id"]) != bool(args["eab_hmac_key"]):
        return f"tls_acme_eab_key_id and tls_acme_eab_hmac_key go together: set both in {WHERE}, or neither"
    return ""


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(SPEC)
        # Whatever happens, the external account's key must not be printed with the task's arguments.
        result["invocation"] = {"module_args": {"names": args["names"], "directory": args["directory"]}}
        result["changed"] = False
        if said := problem(args):
            result.update(failed=True, msg=f"{said}, and run the playbook again. Nothing was changed.")
        return result
