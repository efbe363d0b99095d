#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Has PAM profiles be in force: what the common-* files say, and not what was once asked of pam-auth-update."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pam_profiles
short_description: Have PAM profiles of /usr/share/pam-configs be in force
description:
  - Debian and Ubuntu put C(/etc/pam.d/common-*) together from profiles, with C(pam-auth-update). This looks at whether
    the files hold the lines of the wanted profiles, in the profiles' order, and no line that no profile of this host
    has. Where that is not so they are put together again; other packages' profiles stay in.
  - So a file that was edited by hand is mended, and a run that died between profile and file is finished by the next.
version_added: "0.2.0"
options:
  enabled:
    description: Names of the profiles that shall be in force.
    type: list
    elements: str
    required: true
notes:
  - Supports C(check_mode) and C(--diff).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Have the profiles in force
  pam_profiles:
    enabled: [slipway-faillock]
"""

RETURN = r"""
missing:
  description: What the files lacked, or held and should not, one line each.
  type: list
  elements: str
  returned: always
"""

import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

CONFIGS = "/usr/share/pam-configs"
TEMPLATES = "/usr/share/pam"
PAM = "/etc/pam.d"
KINDS = ("Auth", "Account", "Password", "Session")


def parse_profile(text: str, initial: bool = False) -> dict[str, list[list[str]]]:
    """Each kind's lines, as words; with initial, those for the first place of a stack are among them."""
    found: dict[str, list[list[str]]] = {}
    kind = ""
    for line in text.splitlines():
        field = re.match(r"([A-Z][A-Za-z-]*):\s*(.*)$", line)
        if field:
            kind = field[1].replace("-Initial", "") if initial else field[1]
        elif line.strip() and kind in KINDS:
            found.setdefault(kind, []).append(line.split())
    return found


def module_of(words: list[str]) -> str:
    """`pam_x.so` and its arguments, without what is to be done about its answer."""
    for index, word in enumerate(words):
        if word.endswith(".so"):
            return " ".join(words[index:])
    return " ".join(words)


def control_of(words: list[str]) -> str:
    """What is to be done about the answer; how far a success jumps is left out."""
    control = " ".join(words).partition("pam_")[0].strip()
    return re.sub(r"=(end|\d+)", "=#", control)


def entries(kind: str, text: str) -> list[tuple[str, str]]:
    """The lines of a common-* file that say something, as (control, module)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == kind.lower():
            found.append((control_of(words[1:]), module_of(words[1:])))
    return found


def strays(known: dict[str, set[tuple[str, str]]], files: dict[str, str]) -> list[str]:
    """The lines of the files that neither a profile of this host nor the empty file has."""
    found = []
    for kind in KINDS:
        name = f"common-{kind.lower()}"
        for entry in entries(kind, files.get(name, "")):
            if entry not in known.get(kind, set()):
                found.append(f"{name}: {' '.join(entry)} belongs to no profile")
    return found


def without(strays_of: set[tuple[str, str]], kind: str, text: str) -> str:
    """A file without lines that say one of these."""
    kept = []
    for line in text.splitlines(keepends=True):
        words = line.split()
        if words and words[0] == kind.lower() and (control_of(words[1:]), module_of(words[1:])) in strays_of:
            continue
        kept.append(line)
    return "".join(kept)


def lacks(profile: dict[str, list[list[str]]], files: dict[str, str]) -> list[str]:
    """The lines of a profile that the files do not hold, or not in this order."""
    missing = []
    for kind, wanted in profile.items():
        name = f"common-{kind.lower()}"
        lines = entries(kind, files.get(name, ""))
        at = 0
        for words in wanted:
            entry = (control_of(words), module_of(words))
            if entry in lines[at:]:
                at = lines.index(entry, at) + 1
            else:
                missing.append(f"{name}: {' '.join(words)}")
    return missing


def read_known() -> dict[str, set[tuple[str, str]]]:
    """Every line that a profile of this host, or the file without any profile, could have put there."""
    known: dict[str, set[tuple[str, str]]] = {kind: set() for kind in KINDS}
    for name in os.listdir(CONFIGS):
        with open(os.path.join(CONFIGS, name)) as stream:
            for kind, lines in parse_profile(stream.read(), initial=True).items():
                known[kind].update((control_of(words), module_of(words)) for words in lines)
    for name, text in read_files(TEMPLATES).items():
        kind = name.partition("-")[2].capitalize()
        known[kind].update(entries(kind, text))
        # What stands in a stack that no profile uses, and what lets one through.
        known[kind].update({("required", "pam_permit.so"), ("[default=#]", "pam_permit.so")})
    return known


def read_files(directory: str = PAM) -> dict[str, str]:
    found = {}
    for kind in KINDS:
        name = f"common-{kind.lower()}"
        path = os.path.join(directory, name)
        if os.path.exists(path):
            with open(path) as stream:
                found[name] = stream.read()
    return found


def remove_strays(known: dict[str, set[tuple[str, str]]], files: dict[str, str]) -> None:
    """pam-auth-update keeps what stands outside its own block."""
    for kind in KINDS:
        name = f"common-{kind.lower()}"
        text = files.get(name, "")
        mended = without(set(entries(kind, text)) - known[kind], kind, text)
        if mended == text:
            continue
        path = os.path.join(PAM, name)
        with open(path + ".slipway", "w") as stream:
            stream.write(mended)
        os.chmod(path + ".slipway", 0o644)
        os.rename(path + ".slipway", path)


def read_profiles(module: AnsibleModule) -> dict[str, dict[str, Any]]:
    profiles = {}
    for name in module.params["enabled"]:
        path = os.path.join(CONFIGS, name)
        if not os.path.exists(path):
            if module.check_mode:
                # Another task has only said that it would put it there.
                continue
            module.fail_json(msg=f"There is no PAM profile {path} on this host.")
        with open(path) as stream:
            profiles[name] = parse_profile(stream.read())
    return profiles


def main() -> None:
    module = AnsibleModule(
        argument_spec={"enabled": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    profiles = read_profiles(module)
    before = read_files()
    missing = [line for profile in profiles.values() for line in lacks(profile, before)]
    missing += [f"{name}: the profile itself" for name in module.params["enabled"] if name not in profiles]
    missing += strays(read_known(), before)
    if not missing:
        module.exit_json(changed=False, missing=[])
    diff = {"before": "", "after": "".join(f"{line}\n" for line in missing)}
    if module.check_mode:
        module.exit_json(changed=True, missing=missing, diff=diff)
    remove_strays(read_known(), before)
    # --force: files that were edited by hand would be left as they are.
    command = ["pam-auth-update", "--package", "--force", "--enable", *module.params["enabled"]]
    code, out, err = module.run_command(command, environ_update={"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"})
    after = read_files()
    left = [line for profile in profiles.values() for line in lacks(profile, after)] + strays(read_known(), after)
    if code != 0 or left:
        module.fail_json(
            msg="pam-auth-update did not put the profiles in force: " + ("; ".join(left) or (out + err).strip()),
            missing=missing,
        )
    diff = {
        "before": "\n".join(before[name] for name in sorted(before)),
        "after": "\n".join(after[name] for name in sorted(after)),
    }
    module.exit_json(changed=True, missing=missing, diff=diff)


if __name__ == "__main__":
    main()
