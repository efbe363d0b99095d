#!/usr/bin/python
"""Have the data volume mounted, as large as its device, and nothing written where it belongs while it is away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume
short_description: Mount the data volume, let it grow, keep its mount point shut
description:
  - Looks at the volume first. A device that is not there, another file system than the one named, and files where the
    volume belongs are refused with a sentence, before anything has changed.
  - The directory under the mount point is made immutable, so that nobody, root included, writes there while the volume
    is away. That is looked at in every run, mounted or not.
  - A device that has grown gets its file system grown, mounted and in use.
options:
  uuid:
    description: The UUID of the file system.
    type: str
    required: true
  path:
    description: Where it is mounted.
    type: path
    required: true
  fstype:
    description: Its kind.
    type: str
    choices: [ext4, xfs]
    required: true
  units:
    description: The mount unit, and units that need it. All are read again when they changed; the first is started.
    type: list
    elements: str
    required: true
  state:
    description: With C(shut) the volume is looked at and its place shut; with C(mounted) it is mounted and grown.
    type: str
    choices: [shut, mounted]
    required: true
"""

EXAMPLES = r"""
- name: Mount the data volume
  data_volume:
    uuid: 6b5f3f5e-1f6a-4d5e-9a53-0d2f6d6f1c11
    path: /var/www/app
    fstype: ext4
    units: [var-www-app.mount, nginx.service]
    state: mounted
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done; one line each.
  type: list
  elements: str
  returned: always
"""

import fcntl
import os
import stat
import struct

from ansible.module_utils.basic import AnsibleModule

BY_UUID = "/dev/disk/by-uuid/"
# A smaller rest than this is not worth a word: file systems leave some of it themselves.
GRAIN = 16 * 1024 * 1024
BLKGETSIZE64 = 0x80081272
XFS_IOC_FSGEOMETRY_V1 = 0x80705864
GROW = ("/usr/lib/systemd/systemd-growfs", "/lib/systemd/systemd-growfs")
# Looks under a mount point without taking the volume from anybody: in mounts of its own, which go with it.
ALONE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
UNDER = """
if mountpoint -q "$1"; then umount -l "$1"; fi
echo "flags: $(lsattr -d "$1" 2>/dev/null | cut -d' ' -f1)"
ls -A "$1"
"""
SHUT = """
if mountpoint -q "$1"; then umount -l "$1"; fi
chmod 0000 "$1" && chattr +i "$1"
"""


class Refused(Exception):
    """What the task fails with; nothing was changed."""


def mounts(text: str) -> dict[str, str]:
    """What is mounted where, by /proc/self/mounts: {mount point: device}; the last one counts."""
    found = {}
    for line in text.splitlines():
        device, point = line.split(" ")[:2]
        found[point.replace("\\040", " ")] = device
    return found


def kind_of(head: bytes) -> str:
    """The kind of a file system by the first two KiB of its device."""
    if head[:4] == b"XFSB":
        return "xfs"
    if len(head) >= 2048 and head[1024 + 0x38 : 1024 + 0x3A] == b"\x53\xef":
        return "ext4"
    return "unknown"


def ext4_bytes(head: bytes) -> int:
    """The size of an ext4 file system, from its superblock."""
    superblock = head[1024:2048]
    low, log_size = struct.unpack_from("<I", superblock, 4)[0], struct.unpack_from("<I", superblock, 24)[0]
    wide = struct.unpack_from("<I", superblock, 0x60)[0] & 0x80  # INCOMPAT_64BIT
    high = struct.unpack_from("<I", superblock, 0x150)[0] if wide else 0
    size: int = ((high << 32) | low) * (1024 << log_size)
    return size


def xfs_bytes(geometry: bytes) -> int:
    """The size of a mounted XFS, from what it says of its geometry."""
    size: int = struct.unpack_from("<I", geometry, 0)[0] * struct.unpack_from("<Q", geometry, 32)[0]
    return size


def head_of(device: str) -> bytes:
    with open(device, "rb") as stream:
        return stream.read(2048)


def device_bytes(device: str) -> int:
    with open(device, "rb") as stream:
        return int(struct.unpack("Q", fcntl.ioctl(stream, BLKGETSIZE64, bytes(8)))[0])


def filesystem_bytes(fstype: str, device: str, path: str) -> int:
    if fstype == "ext4":
        return ext4_bytes(head_of(device))
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return xfs_bytes(fcntl.ioctl(descriptor, XFS_IOC_FSGEOMETRY_V1, bytes(112)))
    finally:
        os.close(descriptor)


def shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


class Volume:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.uuid: str = module.params["uuid"]
        self.path: str = module.params["path"]
        self.fstype: str = module.params["fstype"]
        self.device = BY_UUID + self.uuid
        self.actions: list[str] = []
        self.warnings: list[str] = []

    def run(self, *argv: str) -> tuple[int, str]:
        code, out, err = self.module.run_command(list(argv), environ_update={"LC_ALL": "C"})
        return code, (out + err).strip()

    def act(self, what: str) -> bool:
        """Note an action, and say whether it is to be carried out."""
        self.actions.append(what)
        return not self.module.check_mode

    def mounted(self) -> bool:
        with open("/proc/self/mounts") as stream:
            device = mounts(stream.read()).get(self.path)
        if device is None:
            return False
        if os.path.realpath(device) != os.path.realpath(self.device):
            raise Refused(f"{self.path} holds {device}, and not the volume {self.uuid}: unmount it first")
        return True

    def look(self) -> None:
        """Refuse what cannot work."""
        try:
            there = stat.S_ISBLK(os.stat(self.device).st_mode)
        except FileNotFoundError:
            there = False
        if not there:
            have = sorted(os.listdir(BY_UUID)) if os.path.isdir(BY_UUID) else []
            raise Refused(
                f"the volume {self.uuid} is not attached to this host (attached: {', '.join(have) or 'none'}):"
                " attach it, or correct base_data_volume_uuid"
            )
        kind = kind_of(head_of(self.device))
        if kind != self.fstype:
            raise Refused(f"the volume {self.uuid} holds {kind}, and base_data_volume_fstype says {self.fstype}")

    def shut(self) -> None:
        """Nobody writes where the volume belongs while it is away."""
        self.look()
        mounted = self.mounted()
        if not os.path.isdir(self.path):
            if os.path.lexists(self.path):
                raise Refused(f"{self.path} is no directory: move it away")
            if not self.act(f"make {self.path}"):
                return
            os.makedirs(self.path, 0o755)
        flags, *content = self.need(*ALONE, UNDER, "sh", self.path).splitlines()
        if content and not mounted:
            raise Refused(
                f"{self.path} holds files ({', '.join(content[:3])}{' …' if content[3:] else ''}) that the volume would"
                " hide: move them onto the volume first, docs/ops/data-volume.md says how"
            )
        if "i" in flags.removeprefix("flags:") or not self.act(f"make {self.path} immutable below the volume"):
            return
        code, said = self.run(*ALONE, SHUT, "sh", self.path)
        if code != 0:
            self.warnings.append(f"{self.path} could not be made immutable ({said}): root can write there unmounted")

    def mount(self) -> None:
        units = self.module.params["units"]
        _, said = self.run("systemctl", "show", "--property=NeedDaemonReload,LoadState", *units)
        if "NeedDaemonReload=yes" in said or "LoadState=not-found" in said.split("\n\n")[0]:
            self.run("systemctl", "daemon-reload")
        _, said = self.run("systemctl", "is-enabled", units[0])
        if said != "enabled" and self.act(f"have {self.path} mounted at boot"):
            self.need("systemctl", "enable", units[0])
        if not self.mounted():
            if not self.act(f"mount {self.path}"):
                return
            self.need("systemctl", "start", units[0])
        self.grow()

    def grow(self) -> None:
        size, have = device_bytes(self.device), filesystem_bytes(self.fstype, self.device, self.path)
        if size - have < GRAIN or not self.act(f"grow {self.path} from {shown(have)} to {shown(size)}"):
            return
        self.need(next(path for path in GROW if os.path.exists(path)), self.path)
        if filesystem_bytes(self.fstype, self.device, self.path) <= have:
            self.actions.pop()

    def need(self, *argv: str) -> str:
        code, said = self.run(*argv)
        if code != 0:
            raise Refused(f"`{' '.join(argv)}` failed: {said}")
        return said


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "uuid": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "fstype": {"type": "str", "choices": ["ext4", "xfs"], "required": True},
            "units": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["shut", "mounted"], "required": True},
        },
        supports_check_mode=True,
    )
    volume = Volume(module)
    try:
        if module.params["state"] == "shut":
            volume.shut()
        else:
            volume.mount()
    except (Refused, OSError) as refusal:
        module.fail_json(msg=f"{volume.path}: {refusal}.", actions=volume.actions)
    for warning in volume.warnings:
        module.warn(warning)
    lines = "".join(f"{line}\n" for line in volume.actions)
    module.exit_json(changed=bool(lines), actions=volume.actions, diff={"before": "", "after": lines})


if __name__ == "__main__":
    main()
