"""A place for restore points in the lab, on data1: an account of its own, whose key may do nothing but keep them."""

from __future__ import annotations

import re
from typing import Any

from lab.state import ROOT

DIRECTORY = "/var/backups/bookshop"
KEEPER = "/usr/local/bin/restore-points"
ACCOUNT = "slipway-restore"


class Keeper:
    def __init__(self, app1: Any, data1: Any) -> None:
        self.app1, self.data1 = app1, data1
        keys = app1.check_output(
            "command -v age-keygen >/dev/null || apt-get -qq install -y age >/dev/null; age-keygen 2>&1"
        )
        found = re.search(r"age1[0-9a-z]+", keys)
        assert found
        self.recipient = found[0]
        self.identity = next(line for line in keys.splitlines() if line.startswith("AGE-SECRET-KEY-")) + "\n"

    def variables(self) -> dict[str, Any]:
        """What hosts are told of it."""
        return {
            "release_restore_point_target": f"{ACCOUNT}@data1",
            "release_restore_point_host_key": self.data1.check_output(
                "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub"
            ),
            "release_restore_point_recipient": self.recipient,
        }

    def admit(self) -> None:
        """Let in the key that the host made for itself when it was told."""
        public = self.app1.check_output("cat /etc/slipway/restore-point/id_ed25519.pub")
        program = (ROOT / "roles/release/files/keeper/restore-points").read_text()
        self.data1.check_output(f"cat > {KEEPER} <<'END'\n{program}END\nchmod 755 {KEEPER}")
        home = f"/var/lib/{ACCOUNT}"
        line = f'restrict,command="{KEEPER} {DIRECTORY} --days 14" {public}'
        self.data1.check_output(f"useradd --system --create-home --home-dir {home} --shell /bin/sh {ACCOUNT}")
        self.data1.check_output(f"install -d -o {ACCOUNT} -m 700 {DIRECTORY} {home}/.ssh")
        self.data1.check_output(
            f"echo '{line}' > {home}/.ssh/authorized_keys && chown {ACCOUNT} {home}/.ssh/authorized_keys"
        )
        self.data1.check_output(
            f"echo 'AllowGroups {ACCOUNT}' > /etc/ssh/sshd_config.d/restore-points.conf; systemctl reload ssh"
        )

    def leave(self) -> None:
        self.data1.check_output("rm /etc/ssh/sshd_config.d/restore-points.conf; systemctl reload ssh")
        self.data1.check_output(f"userdel -r {ACCOUNT} 2>&1; rm -r {DIRECTORY} {KEEPER}")
