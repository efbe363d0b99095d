#!/bin/sh
# Last step of the host image, run in its root: makes it what a provider would hand over, and bootable as a container.
set -eu

# Each host makes its own identity at its first boot.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
cat >/etc/systemd/system/lab-host-keys.service <<'UNIT'
[Unit]
Description=Make this host's own ssh keys
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf ../lab-host-keys.service /etc/systemd/system/multi-user.target.wants/lab-host-keys.service

# What belongs to a machine and not to a container on it.
for unit in getty.target console-getty.service systemd-udevd.service systemd-udev-trigger.service \
  systemd-networkd-wait-online.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  dev-hugepages.mount proc-sys-fs-binfmt_misc.automount systemd-modules-load.service systemd-remount-fs.service \
  e2scrub_reap.service; do
  ln -sf /dev/null "/etc/systemd/system/$unit"
done

# What base images for containers change about apt, and a server does not have.
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-* /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/excludes
# A lab's disk need not outlive a power cut: packages install in half the time without syncing each file.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/lab
# Nor need Python compile Ansible's modules anew at each task: see bytecode.py.
packages=/usr/lib/python3/dist-packages
mv /tmp/bytecode.py "$packages/lab_bytecode.py"
echo 'import lab_bytecode' >"$packages/lab-bytecode.pth"
chmod 0644 "$packages/lab_bytecode.py" "$packages/lab-bytecode.pth"
python3 -m py_compile "$packages/lab_bytecode.py"
