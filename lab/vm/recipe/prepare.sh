#!/bin/sh
# Makes a bootable disk of the root file system that it runs in: a copy of a lab host's, in a container of its own.
#   prepare.sh UNMASK   (names of the units that only a container does without)
# Reads hosts, resolv.conf and modules in /mnt, and NAME, ADDRESS, GATEWAY, RESOLVER, SIZE and OWNER from its environment;
# leaves vmlinuz, initrd.img and disk.raw in /mnt.
# Nothing here changes what a role set: only what every provider's image has and a container lacks.
set -eu
out=/mnt
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a NEEDRESTART_SUSPEND=1
seconds() { printf 'prepare: %s at %s s\n' "$1" "$(($(date +%s) - started))"; }
started=$(date +%s)

# A small initrd: the modules that this machine's disk needs, and not every driver there is.
mkdir -p /etc/initramfs-tools/conf.d
printf 'MODULES=list\nCOMPRESS=gzip\n' >/etc/initramfs-tools/conf.d/vm
cp $out/modules /etc/initramfs-tools/modules
# No unit is to be started by a package's script here, and no init answers.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
case $(. /etc/os-release && echo "$ID") in
  ubuntu) kernel=linux-image-generic ;;
  *) kernel=linux-image-amd64 ;;
esac
apt-get update -qq
apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confold \
  "$kernel" initramfs-tools udev kmod e2fsprogs >$out/apt.log 2>&1 || { tail -n 30 $out/apt.log >&2; exit 1; }
apt-get clean
rm /usr/sbin/policy-rc.d
seconds "$kernel installed"
# The newest, should there be several.
version=$(for path in /boot/vmlinuz-*; do echo "${path#/boot/vmlinuz-}"; done | sort -V | tail -n 1)
[ -e "/boot/initrd.img-$version" ] || update-initramfs -c -k "$version"
cp "/boot/vmlinuz-$version" $out/vmlinuz
cp "/boot/initrd.img-$version" $out/initrd.img

# The tree without what the engine lays over it: /proc, /sys, /dev, /mnt, hosts and resolv.conf.
tree=/media
mount --bind / "$tree"
for unit in "$@"; do
  if [ "$(readlink "$tree/etc/systemd/system/$unit")" = /dev/null ]; then rm "$tree/etc/systemd/system/$unit"; fi
done
rm -rf "$tree/.dockerenv" "$tree/etc/dpkg/dpkg.cfg.d/lab" "$tree/var/log/journal/"*
cp $out/hosts "$tree/etc/hosts"
echo "$NAME" >"$tree/etc/hostname"
# A host without an identity would take its next boot for its first, and apply presets to all units.
[ -s "$tree/etc/machine-id" ] || cp /etc/machine-id "$tree/etc/machine-id"
cat >"$tree/etc/systemd/network/10-vm.network" <<NETWORK
[Match]
Type=ether

[Network]
Address=$ADDRESS
Gateway=$GATEWAY
DNS=$RESOLVER
IPv6AcceptRA=no
LinkLocalAddressing=no
NETWORK
chmod 644 "$tree/etc/systemd/network/10-vm.network"
for unit in multi-user.target.wants/systemd-networkd.service sockets.target.wants/systemd-networkd.socket; do
  mkdir -p "$tree/etc/systemd/system/${unit%/*}"
  ln -sf "/lib/systemd/system/${unit##*/}" "$tree/etc/systemd/system/$unit"
done
# A link leads to a resolver of the host's own.
[ -L "$tree/etc/resolv.conf" ] || cp $out/resolv.conf "$tree/etc/resolv.conf"
touch "$tree/etc/fstab"
# Whatever else it mounts stays.
awk '$2 != "/" && !/UNCONFIGURED/' "$tree/etc/fstab" >$out/fstab
echo 'LABEL=root / ext4 defaults,errors=remount-ro 0 1' | cat - $out/fstab >"$tree/etc/fstab"
# What is due once a day or a week ran a moment ago: else it all runs at the first boot, for minutes, under emulation.
mkdir -p "$tree/var/lib/systemd/timers"
for directory in etc lib; do
  for timer in "$tree/$directory/systemd/system/timers.target.wants"/*.timer; do
    [ ! -L "$timer" ] || touch "$tree/var/lib/systemd/timers/stamp-${timer##*/}"
  done
done
seconds 'tree adapted'

rm -f $out/disk.raw
truncate -s "$SIZE" $out/disk.raw
mkfs.ext4 -q -F -L root -E lazy_itable_init=1,lazy_journal_init=1 -d "$tree" $out/disk.raw
umount "$tree"
chown "$OWNER" "$out"/*
seconds 'disk written'
