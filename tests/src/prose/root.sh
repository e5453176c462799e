# Gives a host a root of its own: what this machine has, and above it what the host changes. $DISK is a file system of
# its own, $LAB stays where it is. Runs in the host's mount namespace, whose other processes change root as well.
set -e
mkdir -p "$DISK"/{upper,work,root}
mount -t overlay own -o "lowerdir=/,upperdir=$DISK/upper,workdir=$DISK/work" "$DISK/root"
cd "$DISK/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mkdir -p ".$LAB"
mount --rbind "$LAB" ".$LAB"
mkdir -p tmp/before
pivot_root . tmp/before
cd /
umount -l /tmp/before
rmdir /tmp/before
# As systemd has it, for maintainer scripts that look.
mkdir -p /run/systemd/system /usr/local/bin
# Where maintainer scripts find them, too.
rm -f /usr/bin/systemctl
install -m 755 "$LAB/systemctl" /usr/bin/systemctl
[[ -e /usr/bin/sudo ]] || printf '#!/bin/sh\nexec "$@"\n' >/usr/local/bin/sudo
chmod 755 /usr/local/bin/*
# A host that was off and has its unit enabled starts it.
if [[ -e /var/lib/plasmavmc-enabled ]]; then systemctl start plasmavmc-server; fi
