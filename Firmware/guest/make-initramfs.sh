#!/bin/sh
# Packs the guest's root file system: an uncompressed "newc" cpio archive, which the kernel unpacks at the least cost.
# The same inputs give the same bytes: sorted names, no times, no owners, no inode numbers of the build machine.
#
# usage: make-initramfs.sh BUSYBOX OUTPUT LIB [PROGRAM...]
#        LIB: a folder that becomes /lib, if it is there      PROGRAM...: files for /bin
set -eu
export LC_ALL=C

[ $# -ge 3 ] || { echo "usage: $0 BUSYBOX OUTPUT LIB [PROGRAM...]" >&2; exit 2; }
busybox=$1
output=$2
lib=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022

mkdir "$root/bin" "$root/dev" "$root/etc" "$root/proc" "$root/run" "$root/sys" "$root/root" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cp "$here/init" "$root/init"
cp "$here/shrc" "$root/etc/shrc"
cp "$here/launch-secret" "$root/bin/launch-secret"
for program in "$@"; do cp "$program" "$root/bin/"; done
if [ -d "$lib" ]; then
    cp -R "$lib" "$root/lib"
    # Where the kernel looks for it when it wants a module.
    mkdir "$root/sbin"
    ln -s ../bin/busybox "$root/sbin/modprobe"
fi
find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -exec chmod 644 {} +
chmod 755 "$root/init" "$root/bin/"*

# No device nodes, so no need to be root: the kernel's built-in archive brings /dev/console.
(cd "$root" && find . -exec touch -h -d @0 {} + &&
    find . | sort | cpio --quiet --create --format=newc --owner=+0:+0 --reproducible) > "$output.part"
mv "$output.part" "$output"
