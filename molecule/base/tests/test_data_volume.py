"""The data volume: mounted by its UUID, grown while it is used, and nothing is written in its place while it is away.

A loop device stands in for what a provider attaches. The lab's machine may not resize ext4 (that takes
CAP_SYS_RESOURCE), so the volume here is XFS; both kinds are grown by the same program.
"""

from __future__ import annotations

import json

import pytest

UUID = "6b5f3f5e-1f6a-4d5e-9a53-0d2f6d6f1c11"
IMAGE = "/var/lib/slipway-volume.img"
PLACE = "/srv/slipway-volume"
UNIT = "srv-slipway\\x2dvolume.mount"
NEEDS = "slipway-needs-volume.service"


@pytest.fixture(scope="module")
def volume(data1):
    """A block device with an XFS of 320 MiB on data1, as a provider attaches one."""
    script = f"""set -e
test -e /dev/loop-control || mknod /dev/loop-control c 10 237
for n in $(seq 0 63); do test -e /dev/loop$n || mknod /dev/loop$n b 7 $n; done
dpkg -s xfsprogs >/dev/null 2>&1 || apt-get -qq install -y --no-install-recommends xfsprogs
truncate -s 320M {IMAGE}
mkfs.xfs -q -f -m uuid={UUID} {IMAGE}
mkdir -p /dev/disk/by-uuid
device=$(losetup --find --show {IMAGE})
ln -sfn $device /dev/disk/by-uuid/{UUID}
printf '[Service]\\nExecStart=/usr/bin/sleep infinity\\n' > /run/systemd/system/{NEEDS}
"""
    run = data1.run(script)
    assert run.rc == 0, run.stderr
    yield data1.check_output(f"readlink -f /dev/disk/by-uuid/{UUID}")
    data1.run(f"""
systemctl stop {NEEDS} '{UNIT}'
device=$(readlink -f /dev/disk/by-uuid/{UUID})
rm -rf /etc/systemd/system/'{UNIT}' /etc/systemd/system/*.wants/'{UNIT}' /etc/systemd/system/{NEEDS}.d
rm -rf /etc/systemd/system/dev-disk-by*uuid*.device.d /run/systemd/system/{NEEDS}
losetup --detach "$device"; rm -f /dev/disk/by-uuid/{UUID} {IMAGE}
chattr -i {PLACE}; rmdir {PLACE}
systemctl daemon-reload
""")
    assert not data1.file(IMAGE).exists


@pytest.fixture
def apply(ops, volume):
    def run(*more: str, **variables):
        given = {
            "base_data_volume_uuid": UUID, "base_data_volume_path": PLACE, "base_data_volume_fstype": "xfs",
            "base_data_volume_needed_by": [NEEDS], **variables,
        }  # fmt: skip
        return ops.playbook(
            "playbooks/site.yml", "--tags", "base", "--limit", "data1", "--diff", "-e", json.dumps(given), *more
        )

    return run


def test_a_volume_that_is_not_there_is_named_before_anything_changes(apply, data1):
    run = apply(base_data_volume_uuid="00000000-0000-4000-8000-000000000000")
    assert run.code != 0
    assert "the volume 00000000-0000-4000-8000-000000000000 is not attached" in run.output
    assert UUID in run.output
    assert not data1.file(PLACE).exists


def test_files_that_it_would_hide_are_not_hidden(apply, data1):
    data1.check_output(f"mkdir -p {PLACE} && touch {PLACE}/precious")
    run = apply()
    data1.check_output(f"rm -r {PLACE}")
    assert run.code != 0
    assert "holds files (precious) that the volume would hide" in run.output
    assert not data1.file(f"/etc/systemd/system/{UNIT}").exists


@pytest.mark.full
def test_it_is_mounted_grown_in_use_and_shut_while_away(apply, data1, volume):
    run = apply()
    assert run.code == 0, run.output
    options = data1.check_output(f"findmnt --noheadings --output OPTIONS {PLACE}").split(",")
    assert {"nodev", "nosuid", "noexec"} <= set(options)
    assert data1.check_output(f"findmnt --noheadings --output SOURCE {PLACE}") == volume
    assert data1.check_output(f"systemctl is-enabled '{UNIT}'") == "enabled"
    # It does not hold up a boot: local-fs.target wants it and does not wait.
    assert UNIT not in data1.check_output("systemctl show --property=After,Requires local-fs.target")

    # Somebody uses it, and it grows under that.
    data1.check_output(f"systemctl start {NEEDS} && echo kept > {PLACE}/file")
    small = int(data1.check_output(f"stat -f -c %b {PLACE}"))
    data1.check_output(f"truncate -s 448M {IMAGE} && losetup --set-capacity {volume}")
    before = data1.check_output(f"systemctl show --property=ActiveEnterTimestampMonotonic '{UNIT}'")
    named = apply("--check")
    assert "+grow /srv/slipway-volume from 0.3 GiB to 0.4 GiB" in named.output
    assert int(data1.check_output(f"stat -f -c %b {PLACE}")) == small
    grown = apply()
    assert grown.code == 0, grown.output
    assert int(data1.check_output(f"stat -f -c %b {PLACE}")) > small * 1.3
    assert data1.check_output(f"systemctl show --property=ActiveEnterTimestampMonotonic '{UNIT}'") == before
    assert data1.check_output(f"cat {PLACE}/file") == "kept"
    again = apply()
    assert "changed=0" in again.output.split("PLAY RECAP")[1], again.output

    # Away: who needs it goes with it and does not come back without it, and not even root writes in its place.
    data1.check_output(f"systemctl stop '{UNIT}'")
    assert not data1.service(NEEDS).is_running
    assert "Operation not permitted" in data1.run(f"touch {PLACE}/lost").stderr
    data1.check_output(f"mv /dev/disk/by-uuid/{UUID} /dev/disk/by-uuid/away")
    assert data1.run(f"systemctl start {NEEDS}").rc != 0
    data1.check_output(f"mv /dev/disk/by-uuid/away /dev/disk/by-uuid/{UUID}")
    data1.check_output(f"systemctl start {NEEDS}")
    assert data1.check_output(f"cat {PLACE}/file") == "kept"
