#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Installs a whole set of files on a host in one round trip. Its action plugin of the same name renders them."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: install_files
short_description: Install a set of files, directories, links and trees in one round trip
description:
  - Renders templates on the controller and brings a whole set of files to a host with one module call, where
    C(template), C(copy) and C(file) would need one for each.
  - The set is installed as one. Files are compared first, then validated, and only then replaced, each in one step
    (written beside its destination, then renamed over it). When anything fails on the way, all is put back.
  - Modes are exact, whatever the umask. A new file is readable to nobody but root until it has its owner and mode.
  - A destination that is a symlink is replaced by the file; the file that it led to is left alone.
version_added: "0.1.0"
options:
  directories:
    description: Directories that shall be there. Missing parents are made too, as root's and with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Three or four octal digits, quoted.
        type: str
        default: "0755"
  files:
    description: Files that shall be there. Each takes exactly one of I(template), I(src) and I(content).
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description: Absolute path.
        type: str
        required: true
      template:
        description: A template of the role, rendered on the controller with the task's variables.
        type: str
      src:
        description: A file of the role, taken as it is.
        type: str
      content:
        description: The content itself.
        type: str
      vars:
        description: Variables for this template alone.
        type: dict
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Three or four octal digits, quoted.
        type: str
        default: "0644"
      validate:
        description:
          - A command that must succeed before anything is changed; C(%s) is the new file, beside its destination where
            that directory exists already.
          - Run without a shell, for files that are about to change only, not in check mode.
        type: str
      sensitive:
        description: Keeps the content, and what I(validate) prints about it, out of the output.
        type: bool
        default: false
  trees:
    description: Directories of the role, installed with all that is in them.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description: A directory among the role's files. C(__pycache__) in it is left out; a symlink in it is refused.
        type: str
        required: true
      dest:
        description: Absolute path.
        type: str
        required: true
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Mode of the files, three or four octal digits, quoted.
        type: str
        default: "0644"
      directory_mode:
        description: Mode of the directories, three or four octal digits, quoted.
        type: str
        default: "0755"
      purge:
        description: Removes what is in I(dest) and not in I(src), but for C(__pycache__).
        type: bool
        default: false
  links:
    description: Symlinks that shall be there. A file in their place is replaced, a directory is not.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the link.
        type: str
        required: true
      target:
        description: What it holds. That need not exist.
        type: str
        required: true
  absent:
    description: Absolute paths that shall not be there. A directory goes with all that is in it.
    type: list
    elements: path
    default: []
  validate:
    description:
      - A command that must succeed once the whole set is in place, for what can only be judged together. When it fails,
        the set is taken back and the task fails. Run without a shell, when something changed only, not in check mode.
    type: str
  payload:
    description: What the action plugin hands to the module. Not for playbooks.
    type: str
notes:
  - Supports C(check_mode) and C(--diff).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Install the nginx configuration
  install_files:
    directories:
      - path: /etc/nginx/snippets
    files:
      - {template: nginx.conf.j2, dest: /etc/nginx/nginx.conf}
      - {template: site.conf.j2, dest: /etc/nginx/sites-available/app}
    links:
      - {path: /etc/nginx/sites-enabled/app, target: ../sites-available/app}
    absent:
      - /etc/nginx/sites-enabled/default
    validate: nginx -t
  notify: Reload nginx

- name: Install the rights of the deployers
  install_files:
    files:
      - {template: sudoers.j2, dest: /etc/sudoers.d/deployers, mode: "0440", validate: visudo -cf %s}

- name: Install a program of several files
  install_files:
    trees:
      - {src: releasectl/, dest: /usr/local/lib/slipway/releasectl, purge: true}
"""

RETURN = r"""
changed_files:
  description: Every path that was made, replaced, given another owner or mode, or removed, in that order.
  type: list
  elements: str
  returned: always
  sample: [/etc/nginx/nginx.conf]
diff:
  description: Before and after of each, where C(--diff) asks for it.
  type: list
  elements: dict
  returned: with --diff
"""

import base64
import contextlib
import errno
import grp
import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

VALIDATION_SECONDS = 60
PARENT_MODE = 0o755  # of directories that are made on the way to a wanted one
DIFF_LIMIT = 100_000  # bytes of a file beyond which a diff serves nobody


def octal_mode(value: object) -> str:
    """Check a mode. An unquoted 0644 is the number 420 by the time it gets here."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value):
        raise TypeError(f"a mode is three or four octal digits in quotes, like '0644', and not {value!r}")
    return str(value)


OWNERSHIP: dict[str, Any] = {
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}

ARGUMENT_SPEC: dict[str, Any] = {
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "mode": {"type": octal_mode, "default": "0755"},
            **OWNERSHIP,
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "dest": {"type": "str", "required": True},
            "template": {"type": "str"},
            "src": {"type": "str"},
            "content": {"type": "str"},
            "vars": {"type": "dict"},
            "mode": {"type": octal_mode, "default": "0644"},
            "validate": {"type": "str"},
            "sensitive": {"type": "bool", "default": False},
            **OWNERSHIP,
        },
        "mutually_exclusive": [("template", "src", "content")],
        "required_one_of": [("template", "src", "content")],
    },
    "trees": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "src": {"type": "str", "required": True},
            "dest": {"type": "str", "required": True},
            "mode": {"type": octal_mode, "default": "0644"},
            "directory_mode": {"type": octal_mode, "default": "0755"},
            "purge": {"type": "bool", "default": False},
            **OWNERSHIP,
        },
    },
    "links": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "str", "required": True}, "target": {"type": "str", "required": True}},
    },
    "absent": {"type": "list", "elements": "path", "default": []},
    "validate": {"type": "str"},
    # It carries every file's content: what is marked so is kept out of logs, and of -vvv.
    "payload": {"type": "str", "no_log": True},
}


class Refused(Exception):
    """What the task fails with; the host is as it was."""


class Installer:
    """Plans the whole set, then carries it out; whatever fails, it puts back what it changed."""

    def __init__(self, wanted: dict[str, Any], check_mode: bool) -> None:
        self.wanted = wanted
        self.check_mode = check_mode
        self.changed_files: list[str] = []
        self.diffs: list[dict[str, str]] = []
        self.steps: list[Callable[[], None]] = []
        self.undo: list[Callable[[], None]] = []
        self.leavings: list[str] = []
        # Directories that the plan makes: what lies in them is new, and cannot be looked at yet.
        self.planned_directories: set[str] = set()

    def run(self) -> None:
        for directory in self.wanted["directories"]:
            self.plan_directory(directory)
        to_validate = [file for file in self.wanted["files"] if self.plan_file(file)]
        for link in self.wanted["links"]:
            self.plan_link(link)
        for path in self.wanted["absent"]:
            self.plan_absence(path)
        for purge in self.wanted["purges"]:
            self.plan_purge(purge)
        if self.check_mode or not self.steps:
            return
        for file in to_validate:
            self.validate_file(file)
        try:
            for step in self.steps:
                step()
            if self.wanted["validate"]:
                judge(shlex.split(self.wanted["validate"]), "the installed files", hidden=False)
        except BaseException:
            for take_back in reversed(self.undo):
                take_back()
            raise
        for path in self.leavings:
            remove(path)

    # What is to be done

    def plan_directory(self, wanted: dict[str, Any]) -> None:
        path = absolute(wanted["path"])
        try:
            present = os.stat(path)
        except FileNotFoundError:
            if os.path.islink(path):
                raise Refused(f"{path} is a symlink that leads nowhere, and shall be a directory") from None
            self.note(path, "", describe(wanted) + "\n")
            self.resolve(wanted)
            self.planned_directories.update(missing_parents(path))
            self.steps.append(lambda: self.make_directory(path, wanted))
            return
        if not stat.S_ISDIR(present.st_mode):
            raise Refused(f"{path} is there and is not a directory")
        self.plan_attributes(path, present, wanted)

    def plan_file(self, wanted: dict[str, Any]) -> bool:
        """Whether the content will change."""
        path = absolute(wanted["dest"])
        content: bytes = wanted["content"]
        parent = os.path.dirname(path)
        if not os.path.isdir(parent) and parent not in self.planned_directories and not self.check_mode:
            raise Refused(f"the directory {parent} of {path} is not there: name it under directories")
        self.resolve(wanted)
        try:
            present = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self.note(path, "", shown(wanted, content))
            self.steps.append(lambda: self.replace_file(path, content, wanted))
            return True
        if stat.S_ISDIR(present.st_mode):
            raise Refused(f"{path} is a directory, and shall be a file")
        if stat.S_ISREG(present.st_mode):
            with open(path, "rb") as file:
                before = file.read()
            if before == content:
                self.plan_attributes(path, present, wanted)
                return False
            self.note(path, shown(wanted, before), shown(wanted, content))
        else:
            kind = f"a symlink to {os.readlink(path)}" if stat.S_ISLNK(present.st_mode) else "not a regular file"
            self.note(path, f"({kind})\n", shown(wanted, content))
        self.steps.append(lambda: self.replace_file(path, content, wanted))
        return True

    def plan_attributes(self, path: str, present: os.stat_result, wanted: dict[str, Any]) -> None:
        before = describe_present(present)
        after = describe(wanted)
        if (stat.S_IMODE(present.st_mode), present.st_uid, present.st_gid) == (
            int(wanted["mode"], 8),
            self.uid(wanted["owner"]),
            self.gid(wanted["group"]),
        ):
            return
        self.note(path, before + "\n", after + "\n")

        def step() -> None:
            self.undo.append(
                lambda: set_attributes(path, stat.S_IMODE(present.st_mode), present.st_uid, present.st_gid)
            )
            self.set_wanted(path, wanted)

        self.steps.append(step)

    def plan_link(self, wanted: dict[str, Any]) -> None:
        path, target = absolute(wanted["path"]), wanted["target"]
        before = ""
        if os.path.islink(path):
            if os.readlink(path) == target:
                return
            before = f"a symlink to {os.readlink(path)}\n"
        elif os.path.isdir(path):
            raise Refused(f"{path} is a directory, and shall be a symlink")
        elif os.path.lexists(path):
            before = "a file\n"
        self.note(path, before, f"a symlink to {target}\n")

        def step() -> None:
            new = beside(path)
            os.symlink(target, new)
            self.set_aside(path)
            os.rename(new, path)

        self.steps.append(step)

    def plan_absence(self, path: str) -> None:
        path = absolute(path)
        if not os.path.lexists(path):
            return
        if os.path.ismount(path) or path == "/":
            raise Refused(f"{path} is a mount point: it is not removed")
        kind = "a directory" if os.path.isdir(path) and not os.path.islink(path) else "a file"
        self.note(path, kind + "\n", "")

        def step() -> None:
            self.set_aside(path, keep_name=False)

        self.steps.append(step)

    def plan_purge(self, wanted: dict[str, Any]) -> None:
        """What is in a tree's place and not in the tree goes."""
        root, kept = wanted["path"], set(wanted["keep"])
        for directory, names, files in os.walk(root):
            for name in sorted(names + files):
                path = os.path.join(directory, name)
                if name != "__pycache__" and os.path.relpath(path, root) not in kept:
                    self.plan_absence(path)
            # What goes, goes whole.
            names[:] = [name for name in names if os.path.relpath(os.path.join(directory, name), root) in kept]

    def note(self, path: str, before: str, after: str) -> None:
        self.changed_files.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})

    # How it is done

    def validate_file(self, wanted: dict[str, Any]) -> None:
        if not wanted.get("validate"):
            return
        if "%s" not in wanted["validate"]:
            raise Refused(f"validate of {wanted['dest']} has no %s, which stands for the file")
        parent = os.path.dirname(wanted["dest"])
        # Beside its destination, so that what the file includes by relative paths is found.
        descriptor, new = tempfile.mkstemp(
            prefix=f".{os.path.basename(wanted['dest'])}.", dir=parent if os.path.isdir(parent) else None
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(wanted["content"])
            self.set_wanted(new, wanted)
            command = [word.replace("%s", new) for word in shlex.split(wanted["validate"])]
            judge(command, wanted["dest"], hidden=wanted["sensitive"])
        finally:
            os.unlink(new)

    def make_directory(self, path: str, wanted: dict[str, Any]) -> None:
        for directory in reversed(missing_parents(path)):
            os.mkdir(directory, 0o700)
            self.undo.append(lambda directory=directory: os.rmdir(directory))  # type: ignore[misc]
            if directory != path:
                set_attributes(directory, PARENT_MODE, os.geteuid(), os.getegid())
        self.set_wanted(path, wanted)

    def replace_file(self, path: str, content: bytes, wanted: dict[str, Any]) -> None:
        descriptor, new = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.set_wanted(new, wanted)
            self.keep_copy(path)
            try:
                os.rename(new, path)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                # A mount point of its own, as /etc/hosts is in a container: it can only be written in place.
                with open(path, "wb") as file:
                    file.write(content)
                self.set_wanted(path, wanted)
                os.unlink(new)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            raise

    def keep_copy(self, path: str) -> None:
        """Make sure that what is at a path can be put back; it stays where it is meanwhile."""
        if not os.path.lexists(path):
            self.undo.append(lambda: remove(path))
            return
        old = beside(path)
        try:
            os.link(path, old, follow_symlinks=False)
        except OSError:
            # No hard links there, or a mount point: a copy does as well.
            shutil.copy2(path, old, follow_symlinks=False)
        self.leavings.append(old)
        self.undo.append(lambda: put_back(old, path))

    def set_aside(self, path: str, keep_name: bool = True) -> None:
        """Keep what is at a path until all is done; with keep_name it stays there, to be renamed over."""
        if keep_name:
            self.keep_copy(path)
            return
        old = beside(path)
        os.rename(path, old)
        self.leavings.append(old)
        self.undo.append(lambda: os.rename(old, path))

    def set_wanted(self, path: str, wanted: dict[str, Any]) -> None:
        set_attributes(path, int(wanted["mode"], 8), self.uid(wanted["owner"]), self.gid(wanted["group"]))

    def resolve(self, wanted: dict[str, Any]) -> None:
        """Refuse names that this host does not know before anything is changed."""
        self.uid(wanted["owner"])
        self.gid(wanted["group"])

    def uid(self, name: str) -> int:
        try:
            return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
        except KeyError:
            return self.nobody_yet(f"there is no user {name} on this host")

    def gid(self, name: str) -> int:
        try:
            return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
        except KeyError:
            return self.nobody_yet(f"there is no group {name} on this host")

    def nobody_yet(self, sentence: str) -> int:
        # In check mode the task that makes the account has only said so.
        if self.check_mode:
            return -1
        raise Refused(sentence)


def set_attributes(path: str, mode: int, uid: int, gid: int) -> None:
    present = os.stat(path)
    if (present.st_uid, present.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    # After the owner, whose change takes set-user-id bits away.
    os.chmod(path, mode)


def missing_parents(path: str) -> list[str]:
    """A directory that is not there, and those above it that are not there either."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def absolute(path: str) -> str:
    if not path.startswith("/"):
        raise Refused(f"{path} is not an absolute path")
    return path.rstrip("/") or "/"


def beside(path: str) -> str:
    """A hidden name that is free, in the same directory: what reads *.conf or *.d there takes no notice of it."""
    return tempfile.mktemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))  # noqa: S306


def put_back(old: str, path: str) -> None:
    try:
        os.rename(old, path)
        # Two names of one file are left both by a rename.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(old)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(old, path)
        os.unlink(old)


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def describe(wanted: dict[str, Any]) -> str:
    return f"mode {wanted['mode'].zfill(4)} owner {wanted['owner']} group {wanted['group']}"


def describe_present(present: os.stat_result) -> str:
    try:
        owner = pwd.getpwuid(present.st_uid).pw_name
    except KeyError:
        owner = str(present.st_uid)
    try:
        group = grp.getgrgid(present.st_gid).gr_name
    except KeyError:
        group = str(present.st_gid)
    return f"mode {stat.S_IMODE(present.st_mode):04o} owner {owner} group {group}"


def shown(wanted: dict[str, Any], content: bytes) -> str:
    """A file's content as far as a diff may show it."""
    if wanted["sensitive"]:
        return "(hidden: it is marked sensitive)\n"
    if len(content) > DIFF_LIMIT:
        return f"({len(content)} bytes)\n"
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"({len(content)} bytes that are not text)\n"


def judge(command: list[str], what: str, hidden: bool) -> None:
    """Run a validation command; raise with its own words when it says no."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VALIDATION_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        raise Refused(f"{command[0]}, which validates {what}, is not on this host") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{command[0]}, which validates {what}, did not end within {VALIDATION_SECONDS} s") from None
    if done.returncode:
        words = "(its output is hidden: the file is sensitive)" if hidden else done.stdout.decode(errors="replace")
        raise Refused(f"`{shlex.join(command)}` refuses {what}; nothing was changed. It says:\n{words.strip()}")


def unpack(payload: str) -> dict[str, Any]:
    wanted: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(payload)))
    for file in wanted["files"]:
        file["content"] = base64.b64decode(file["content"])
    return wanted


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    if not module.params["payload"]:
        module.fail_json(msg="install_files works through its action plugin only: set action_plugins in ansible.cfg")
    installer = Installer(unpack(module.params["payload"]), module.check_mode)
    try:
        installer.run()
    except Refused as refusal:
        module.fail_json(msg=str(refusal), changed=False, changed_files=[])
    except OSError as error:
        module.fail_json(msg=f"could not install: {error}; what was changed was put back", changed=False)
    result: dict[str, Any] = {"changed": bool(installer.changed_files), "changed_files": installer.changed_files}
    if module._diff:
        result["diff"] = installer.diffs
    module.exit_json(**result)


if __name__ == "__main__":
    main()
