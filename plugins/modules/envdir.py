# SPDX-License-Identifier: MIT
"""Keep a program's settings in an envdir: one file a variable, in versions behind a symbolic link."""

from __future__ import annotations

DOCUMENTATION = r"""
module: envdir
short_description: Keep a program's settings in a versioned envdir
description:
  - Writes one file for each setting, as daemontools' C(envdir) reads them, readable by root alone.
  - A change makes a new directory C(<path>.<n>) beside the old one, then moves the symbolic link O(path) to it in one
    rename, so a reader sees all of the old settings or all of the new ones.
  - With O(candidate) the new version waits behind a second link, C(<path>.next), until somebody has tried it and moves
    O(path). Settings as they are in force already make it go again.
  - Settings that are no longer given are gone from the new version. Versions that nothing is pinned to are removed.
  - The result and the difference name settings; they never hold a value.
options:
  path:
    description: Absolute path of the symbolic link that leads to the version in force.
    type: path
    required: true
  settings:
    description:
      - All settings, by name. Values are text or whole numbers; a newline is kept.
      - Refused are values that an envdir or an environment cannot carry (NUL, blanks at the end, control characters,
        more than 128 KiB), and truth values, since C(true) has no agreed spelling in an environment.
    type: dict
    required: true
  reserved:
    description: Names that are refused because somebody else sets them.
    type: list
    elements: str
    default: []
  keep:
    description: How many versions to keep before the one in force, besides those that are pinned.
    type: int
    default: 3
  pins:
    description: Directory whose files name, anywhere in their text, the versions (C(env.3)) that must stay.
    type: path
  candidate:
    description: Whether a change waits to be tried, where there is a version in force already.
    type: bool
    default: false
  fingerprint_key:
    description: File of the key by which versions are told from each other; it is made, once, where there is none.
    type: path
author: Slipway
"""

EXAMPLES = r"""
- name: Install the app's settings
  envdir:
    path: /etc/app/env
    settings: {GREETING: hello, DATABASE_URL: "{{ vaulted_database_url }}"}
"""

RETURN = r"""
version:
  description: Name of the version with these settings, in force or waiting.
  type: str
  returned: always
in_force: {description: Name of the version in force., type: str, returned: always}
waiting: {description: Whether RV(version) waits to be tried., type: bool, returned: always}
key: {description: A name of the fingerprints' key that does not give it away., type: str, returned: with a key}
key_file: {description: Where the key is., type: str, returned: with a key}
key_made: {description: Whether the key was made now., type: bool, returned: with a key}
added: {description: Names that were not there before., type: list, returned: always}
changed_names: {description: Names whose value changed., type: list, returned: always}
removed: {description: Names that are gone., type: list, returned: always}
pruned: {description: Versions that were removed., type: list, returned: always}
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# One string of an environment, "NAME=value" with its end mark, is at most 32 pages long: the kernel refuses more.
LONGEST = 131072
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class Refused(Exception):
    """What was asked for cannot be kept; the text is the sentence for the operator."""


def encode(name: str, value: object) -> bytes:
    """Give the bytes of the file for one setting, or refuse with a sentence that does not hold the value."""
    if not NAME.match(name):
        raise Refused(
            f"{name[:80]!r} cannot be the name of a setting: use letters, digits and underscores, and no digit first."
        )
    if isinstance(value, bool):
        raise Refused(
            f"{name} is a truth value, which an environment cannot hold: write the text that the app expects,"
            f' such as {name}: "1".'
        )
    if isinstance(value, int):
        value = str(value)
    if not isinstance(value, str):
        kind = "empty (null)" if value is None else f"a {type(value).__name__}"
        raise Refused(f'{name} is {kind}, and a setting is text: quote it, or write "" for an empty one.')
    if "\0" in value:
        raise Refused(f"{name} holds a NUL character, which no environment can carry.")
    # Only the very end counts: newlines are stored as NUL, so the file has one line.
    if value.endswith((" ", "\t")):
        raise Refused(f"{name} ends with a blank, which envdir would strip: remove it.")
    if any((ord(c) < 32 and c not in "\t\n") or ord(c) == 127 for c in value):
        raise Refused(f"{name} holds a control character other than a tab or a newline (a carriage return, perhaps).")
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(f"{name} is not text that UTF-8 can hold.") from error
    if len(name) + len(data) + 2 > LONGEST:
        raise Refused(f"{name} is {len(data)} bytes long; an environment carries at most {LONGEST - len(name) - 2}.")
    return data.replace(b"\n", b"\0") + b"\n"


def encode_all(settings: dict, reserved: list[str]) -> dict[str, bytes]:
    """Encode every setting; the first refusal in the order of names speaks."""
    files = {}
    for name in sorted(settings, key=str):
        if name in reserved:
            raise Refused(f"{name} is set by the release itself and cannot be a setting: remove it.")
        files[str(name)] = encode(str(name), settings[name])
    return files


class Store:
    """The versions of one envdir: <path>.<n> directories, and the link <path> to the one in force."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.parent = os.path.dirname(path)
        self.base = os.path.basename(path)
        self.pattern = re.compile(re.escape(self.base) + r"\.([1-9][0-9]*)\Z")

    def versions(self) -> list[int]:
        """Give the numbers of all versions there are, oldest first."""
        try:
            names = os.listdir(self.parent)
        except FileNotFoundError:
            return []
        return sorted(int(m.group(1)) for m in map(self.pattern.match, names) if m)

    def current(self) -> int | None:
        """Give the number of the version in force; None when there is none that can be used."""
        try:
            target = os.readlink(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"{self.path} is not a symbolic link: move it away, then run this again.") from error
        found = self.pattern.match(os.path.basename(target.rstrip("/")))
        if not found or not os.path.isdir(self.directory(int(found.group(1)))):
            return None
        return int(found.group(1))

    def waiting(self) -> int | None:
        """Give the number of the version that waits to be tried."""
        try:
            found = self.pattern.match(os.path.basename(os.readlink(f"{self.path}.next")))
        except OSError:
            return None
        return int(found.group(1)) if found and os.path.isdir(self.directory(int(found.group(1)))) else None

    def directory(self, number: int) -> str:
        return f"{self.path}.{number}"

    def read(self, number: int) -> dict[str, bytes]:
        """Give the files of a version as they are; what is not a plain file reads as a value nobody asks for."""
        files = {}
        directory = self.directory(number)
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    files[name] = file.read()
            else:
                files[name] = b""
        return files

    def loose(self, number: int) -> list[str]:
        """Give the paths of a version whose owner or mode is not what it must be."""
        directory = self.directory(number)
        paths = [(directory, DIRECTORY_MODE)]
        paths += [(os.path.join(directory, name), FILE_MODE) for name in sorted(os.listdir(directory))]
        return [p for p, mode in paths if not self.tight(os.lstat(p), mode)]

    @staticmethod
    def tight(status: os.stat_result, mode: int) -> bool:
        own = (os.geteuid(), os.getegid())
        return stat.S_IMODE(status.st_mode) == mode and (status.st_uid, status.st_gid) == own

    def tighten(self, paths: list[str]) -> None:
        for path in paths:
            os.chown(path, os.geteuid(), os.getegid())
            os.chmod(path, DIRECTORY_MODE if os.path.isdir(path) else FILE_MODE)

    def write(self, number: int, files: dict[str, bytes]) -> None:
        """Make a whole version beside the others, then give it its name: there is never half a version."""
        staging = tempfile.mkdtemp(prefix=f".{self.base}.", dir=self.parent)
        try:
            os.chmod(staging, DIRECTORY_MODE)
            for name, data in files.items():
                descriptor = os.open(os.path.join(staging, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(descriptor, FILE_MODE)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
            sync(staging)
            os.rename(staging, self.directory(number))
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync(self.parent)

    def point(self, number: int, link: str = "") -> None:
        """Move the link in force, or the one at ``link``, in one rename."""
        staging = os.path.join(self.parent, f".{self.base}.link")
        if os.path.lexists(staging):
            os.unlink(staging)
        os.symlink(f"{self.base}.{number}", staging)
        os.rename(staging, link or self.path)
        sync(self.parent)

    def wait(self, number: int | None) -> None:
        """Have a version wait to be tried, or none."""
        if number is not None:
            self.point(number, f"{self.path}.next")
        elif os.path.lexists(f"{self.path}.next"):
            os.unlink(f"{self.path}.next")
            sync(self.parent)

    def litter(self) -> list[str]:
        """Give what a run that died left behind."""
        return [
            os.path.join(self.parent, name)
            for name in sorted(os.listdir(self.parent))
            if name.startswith(f".{self.base}.") and os.path.isdir(os.path.join(self.parent, name))
        ]

    def pinned(self, pins: str | None) -> set[int]:
        """Give the versions that some file in the directory of pins names."""
        mention = re.compile(rb"(?<![A-Za-z0-9._-])" + re.escape(self.base).encode() + rb"\.([1-9][0-9]*)(?![0-9.])")
        found: set[int] = set()
        for folder, _, names in os.walk(pins) if pins else ():
            for name in names:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        found.update(int(n) for n in mention.findall(file.read(1 << 20)))
                except FileNotFoundError:  # a generation ended while we looked
                    continue
        return found

    def spare(self, keep: int, pins: str | None, wanted: int, current: int | None) -> list[int]:
        """Give the versions that can go: neither wanted nor in force, nor pinned, nor among the last few before it.

        Those that are pinned count among the last few, so that nothing is left to do when they are not any more.
        """
        others = [n for n in self.versions() if n != wanted]
        stay = self.pinned(pins) | {current}
        return [n for n in others[: max(0, len(others) - keep)] if n not in stay]


def sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def compare(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, list[str]]:
    return {
        "added": sorted(new.keys() - old.keys()),
        "changed_names": sorted(n for n in new.keys() & old.keys() if new[n] != old[n]),
        "removed": sorted(old.keys() - new.keys()),
    }


def difference(path: str, old: dict[str, bytes], new: dict[str, bytes], loose: list[str]) -> dict[str, str]:
    """Show the change as names; a changed value shows as a remark."""
    changed = set(compare(old, new)["changed_names"])
    before = sorted(old) + [f"{p}: open to others" for p in loose]
    after = [f"{name} (new value)" if name in changed else name for name in sorted(new)]
    return {
        "before_header": path,
        "after_header": path,
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
    }


def apply(
    store: Store, files: dict[str, bytes], keep: int, pins: str | None, check: bool, candidate: bool = False
) -> tuple[dict[str, object], dict[str, str]]:
    """Bring the store to the given files; say what was done, or in check mode what would be."""
    current, waiting = store.current(), store.waiting()
    old = store.read(current) if current else {}
    change = compare(old, files)
    renew = current is None or any(change.values())
    waits = candidate and renew and current is not None
    there = waits and waiting is not None and waiting != current and store.read(waiting) == files
    version = current if not renew else waiting if there else None
    if version is None:
        version = max(store.versions() + sorted(store.pinned(pins)) + [0]) + 1
    seen = [version, current] if waits else [version]
    loose = [path for number in store.versions() if number in seen for path in store.loose(number)]
    undone = waiting is not None and not waits
    if not check:
        if renew and not there:
            store.write(version, files)
        if waits:
            store.wait(version)
        elif renew:
            store.point(version)
        if undone:
            store.wait(None)
        store.tighten(loose)
        for path in store.litter():
            shutil.rmtree(path)
    spare = store.spare(keep, pins, version, current if waits else None)
    if not check:
        for number in spare:
            shutil.rmtree(store.directory(number))
    in_force = version if not waits else current
    result: dict[str, object] = {
        "changed": bool((renew and not there) or loose or spare or undone),
        "version": f"{store.base}.{version}",
        "in_force": f"{store.base}.{in_force}",
        "waiting": bool(waits),
        "pruned": [f"{store.base}.{n}" for n in spare],
        **change,
    }
    return result, difference(store.path, old, files, loose)


def fingerprint_key(path: str, check: bool) -> dict[str, object]:
    """Have a key there that nobody else reads; tell it from others without giving it away."""
    made = not os.path.exists(path)
    if made and not check:
        staging = f"{path}.new"
        if os.path.lexists(staging):
            os.unlink(staging)
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, FILE_MODE)
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(descriptor)
        os.rename(staging, path)
        sync(os.path.dirname(path))
    loose = not made and not Store.tight(os.lstat(path), FILE_MODE)
    if loose and not check:
        os.chown(path, os.geteuid(), os.getegid())
        os.chmod(path, FILE_MODE)
    name = ""
    if os.path.exists(path):
        with open(path, "rb") as file:
            name = hashlib.sha256(b"name of " + file.read().strip()).hexdigest()[:4]
    return {"key": name, "key_file": path, "key_made": made, "key_changed": made or loose}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "settings": {"type": "dict", "required": True, "no_log": True},
            "reserved": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "int", "default": 3},
            "pins": {"type": "path"},
            "candidate": {"type": "bool", "default": False},
            "fingerprint_key": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    settings = module.params["settings"]
    # From here on nothing that is returned comes from a value. The censor would only blot out innocent text:
    # a setting of "1" would turn "env.1" into stars.
    module.no_log_values = set()
    invocation = {"module_args": {**module.params, "settings": sorted(map(str, settings))}}
    try:
        if module.params["keep"] < 1:
            raise Refused("keep must be at least 1, or there is no version to go back to.")
        files = encode_all(settings, module.params["reserved"])
        result, diff = apply(
            Store(module.params["path"]),
            files,
            module.params["keep"],
            module.params["pins"],
            module.check_mode,
            module.params["candidate"],
        )
        if module.params["fingerprint_key"]:
            key = fingerprint_key(module.params["fingerprint_key"], module.check_mode)
            result["changed"] = bool(result["changed"]) or bool(key.pop("key_changed"))
            result.update(key)
    except Refused as refusal:
        module.fail_json(msg=str(refusal), invocation=invocation)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}", invocation=invocation)
    module.exit_json(diff=diff, invocation=invocation, **result)


if __name__ == "__main__":
    main()
