#!/usr/bin/python
"""Have the host's own program settle or obtain the edge's certificate, and tell Ansible what came of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_certificate
short_description: Have the edge show the certificate that it shall
description:
  - Runs the program that the role C(tls) installs (C(certificates)), which also runs by timers and by hand.
  - C(settle) has nginx show the best that is on the host. C(obtain) asks the ACME server for what is missing first.
  - A failure is the one sentence that the program gives; what was served before is served on.
options:
  verb:
    description: What to have done.
    type: str
    choices: [settle, obtain]
    required: true
  program:
    description: Where the program is.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Have the edge show what is here
  edge_certificate:
    verb: settle
    program: /usr/local/libexec/slipway/certificates
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done, and why; one line each.
  type: list
  elements: str
  returned: always
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def command(program: str, verb: str, dry: bool) -> list[str]:
    return [program, verb, "--json", *(["--dry-run"] if dry else [])]


def understand(code: int, out: str, err: str) -> dict[str, Any]:
    """The module's result of how the program ended and what it printed."""
    try:
        answer = json.loads(out)
    except ValueError:
        answer = {"failed": True, "msg": (err.strip().splitlines() or ["it said nothing"])[-1]}
    if code or answer.get("failed"):
        return {"failed": True, "msg": answer.get("msg") or f"it ended with {code}"}
    lines = answer["lines"]
    diff = {"before": "", "after": "".join(line + "\n" for line in lines)}
    return {"changed": bool(lines), "actions": lines, "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "verb": {"type": "str", "choices": ["settle", "obtain"], "required": True},
            "program": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    program = module.params["program"]
    if module.check_mode and not os.path.exists(program):
        # A bare host: the program itself is among what would be installed.
        line = f"{program} would {module.params['verb']}"
        module.exit_json(changed=True, actions=[line], diff={"before": "", "after": line + "\n"})
    result = understand(*module.run_command(command(program, module.params["verb"], module.check_mode)))
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
