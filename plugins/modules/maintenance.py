#!/usr/bin/python
"""Close a site for maintenance, or open it: a file that nginx looks for at each request."""

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance
short_description: Close a site for maintenance, open it, or say which it is
description:
  - While the file is there, nginx answers with its maintenance page. It is written beside and renamed, so that no
    request could meet half of it, and it lies on disk, so that a reboot leaves it.
  - Its action plugin of the same name checks what is asked and makes the sentence that is printed.
options:
  state:
    description: C(on) closes the site, C(off) opens it; empty says which it is.
    type: str
    choices: ["on", "off", ""]
    default: ""
  because:
    description: Why it is closed.
    type: str
    default: ""
  by:
    description: Who does it.
    type: str
    default: ""
  path:
    description: The file.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Close the site
  maintenance:
    state: "on"
    because: moving the database
    path: /var/lib/slipway/maintenance.json
"""

RETURN = r"""
record:
  description: Who closed the site, when and why; empty while it is open.
  type: dict
  returned: always
former:
  description: What the record was before.
  type: dict
  returned: always
"""

import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

HISTORY = "/var/log/slipway/maintenance.jsonl"


def read(path: str) -> dict[str, Any]:
    """Who closed the site; a file that somebody made by hand closes it as well."""
    try:
        with open(path) as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if isinstance(found, dict) and found:
        return found
    made = time.gmtime(os.stat(path).st_mtime)
    return {"by": "somebody by hand", "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", made), "because": "it does not say why"}


def close(path: str, record: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    new = path + ".new"
    with open(new, "w") as stream:
        os.fchmod(stream.fileno(), 0o644)
        json.dump(record, stream)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(new, path)
    sync(os.path.dirname(path))


def reopen(path: str) -> None:
    os.unlink(path)
    sync(os.path.dirname(path))


def sync(directory: str) -> None:
    """What a power cut right after shall not undo."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def note(path: str, entry: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        os.write(descriptor, (json.dumps(entry, sort_keys=True) + "\n").encode())
    finally:
        os.close(descriptor)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["on", "off", ""], "default": ""},
            "because": {"type": "str", "default": ""},
            "by": {"type": "str", "default": ""},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    wanted, path = module.params["state"], module.params["path"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    former = read(path)
    record = {"by": module.params["by"], "at": now, "because": module.params["because"]}
    # Whoever closed it first is the one to ask; another reason is worth a new record.
    changed = {
        "on": not former or former.get("because") != record["because"],
        "off": bool(former),
        "": False,
    }[wanted]
    if changed and not module.check_mode:
        if wanted == "on":
            close(path, record)
        else:
            reopen(path)
        note(HISTORY, {"state": wanted, **record})
    after = {"on": record if changed else former, "off": {}, "": former}[wanted]
    module.exit_json(changed=changed, record=after, former=former)


if __name__ == "__main__":
    main()
