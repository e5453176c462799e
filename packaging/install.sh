#!/bin/sh
# Installs PlasmaVMC from this folder, or removes it. Like the Debian package, it never touches a VM that runs, and
# never a disk.
#
#   ./install.sh             install or upgrade
#   ./install.sh --remove    remove the programs; settings, state and disks stay
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}

if [ "${1:-}" = --remove ]; then
    "$here/scripts/prerm" remove
    (cd "$here/files" && find usr lib -type f) | while read -r file; do rm -f "$root/$file"; done
    "$here/scripts/postrm" remove
    exit
fi
[ -z "${1:-}" ] || { echo "usage: $0 [--remove]" >&2; exit 2; }

before=
[ ! -e "$root/usr/bin/plasmavmc-server" ] || before=yes
(cd "$here/files" && find . -type f) | while read -r file; do
    file=${file#./}
    case $file in
        etc/*) [ ! -e "$root/$file" ] || continue ;;
    esac
    mkdir -p "$root/$(dirname "$file")"
    # Beside, then renamed over: a program that runs keeps the file it runs from.
    cp -p "$here/files/$file" "$root/$file.new"
    mv -f "$root/$file.new" "$root/$file"
done
[ -n "$root" ] || "$here/scripts/postinst" configure "$before"
command -v qemu-system-x86_64 >/dev/null || echo "install QEMU as well: qemu-system-x86_64 is not there"
