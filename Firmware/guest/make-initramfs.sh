#!/bin/sh
# Packs the guest's root file system: an uncompressed "newc" cpio archive, which the kernel unpacks at the least cost.
# The same inputs give the same bytes: sorted names, no times, no owners, no inode numbers of the build machine.
#
# usage: make-initramfs.sh BUSYBOX OUTPUT
set -eu
export LC_ALL=C

[ $# -eq 2 ] || { echo "usage: $0 BUSYBOX OUTPUT" >&2; exit 2; }
busybox=$1
output=$2
here=$(cd "$(dirname "$0")" && pwd)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022

mkdir "$root/bin" "$root/dev" "$root/etc" "$root/proc" "$root/sys" "$root/root" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cp "$here/init" "$root/init"
cp "$here/shrc" "$root/etc/shrc"
cp "$here/launch-secret" "$root/bin/launch-secret"
chmod 755 "$root" "$root"/* "$root/bin/busybox" "$root/bin/launch-secret"
chmod 644 "$root/etc/shrc"

# No device nodes, so no need to be root: the kernel's built-in archive brings /dev/console.
(cd "$root" && find . -exec touch -h -d @0 {} + &&
    find . | sort | cpio --quiet --create --format=newc --owner=+0:+0 --reproducible) > "$output.part"
mv "$output.part" "$output"
