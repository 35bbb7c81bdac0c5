#!/bin/sh
# Builds a guest image: Debian's kernel of one flavour, busybox, and an initramfs, as a unified kernel image.
#
# usage: build.sh FLAVOUR DIRECTORY        FLAVOUR: cloud-amd64 or amd64
# makes: DIRECTORY/vmlinuz-FLAVOUR  DIRECTORY/initrd.cpio  DIRECTORY/guest.img (cloud-amd64) or guest-FLAVOUR.img
#
# The kernel is taken from $GUEST_KERNEL if set, else from /boot if the package is installed, else from a download made
# before, else from the Debian archive. Nothing is installed: packages are unpacked below DIRECTORY.
# The command line is $GUEST_CMDLINE, or the default below.
set -eu
export LC_ALL=C

[ $# -eq 2 ] || { echo "usage: $0 FLAVOUR DIRECTORY" >&2; exit 2; }
flavour=$1
directory=$2
here=$(cd "$(dirname "$0")" && pwd)

# Console on the serial port; restart instead of hanging after a panic, by the ACPI reset register; one UART and no PCI
# to probe. `cryptomgr.notests` leaves out the kernel's tests of its own cryptography: two thirds of all instructions
# of a boot, which matters on an interpreted processor only.
cmdline=${GUEST_CMDLINE-console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests}

fail() { echo "$0: $*" >&2; exit 1; }

# unpack PACKAGE PATH: downloads a package with apt and unpacks one folder of it below DIRECTORY/packages.
unpack() {
    mkdir -p "$directory/packages"
    echo "Downloading $1 with apt…" >&2
    (
        cd "$directory/packages"
        rm -f "$1"_*.deb
        if ! apt-get download "$1" >&2; then
            "$here/../../.ci/apt" update >&2
            apt-get download "$1" >&2
        fi
        dpkg-deb --fsys-tarfile "$1"_*.deb | tar -x "$2"
        rm -f "$1"_*.deb
    ) || fail "cannot get the package $1. Is the Debian archive reachable (apt-get update)?" \
        "Or give a kernel by hand: make guest GUEST_KERNEL=/path/to/vmlinuz"
}

# The newest file of a pattern: versions in the names, so not in the order of the alphabet.
newest() { ls -1 "$@" 2>/dev/null | grep -E "/vmlinuz-[0-9.]+-[0-9]+-$flavour\$" | sort -V | tail -n 1; }

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)

kernel=${GUEST_KERNEL:-}
[ -n "$kernel" ] || kernel=$(newest /boot/vmlinuz-*-"$flavour" || true)
[ -n "$kernel" ] || kernel=$(newest "$directory"/packages/boot/vmlinuz-*-"$flavour" || true)
if [ -z "$kernel" ]; then
    # linux-image-cloud-amd64 only names the newest real package.
    depends() { apt-cache depends "linux-image-$flavour" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
    package=$(depends)
    [ -n "$package" ] || { "$here/../../.ci/apt" update >&2 && package=$(depends); }
    [ -n "$package" ] || fail "apt knows no package linux-image-$flavour: is this Debian on amd64?"
    unpack "$package" ./boot
    kernel=$(newest "$directory"/packages/boot/vmlinuz-*-"$flavour" || true)
fi
[ -r "$kernel" ] || fail "cannot read the kernel '$kernel'"

busybox=/bin/busybox
if ! dpkg-query -W -f '${Status}' busybox-static 2>/dev/null | grep -q '^install ok installed$'; then
    busybox=$directory/packages/bin/busybox
    [ -x "$busybox" ] || unpack busybox-static ./bin
fi
[ -x "$busybox" ] || fail "no busybox in the package busybox-static"

version=$(basename "$kernel" | sed 's/^vmlinuz-//')
name=guest-$flavour.img
[ "$flavour" != cloud-amd64 ] || name=guest.img

cat > "$directory/os-release" <<END
ID=swift-snp-vmm-guest
NAME="swift-snp-vmm default guest"
PRETTY_NAME="Debian kernel $version with busybox"
VERSION_ID=$version
END

cp "$kernel" "$directory/vmlinuz-$flavour"
"$here/make-initramfs.sh" "$busybox" "$directory/initrd.cpio"
"$here/make-uki.sh" "$directory/vmlinuz-$flavour" "$directory/initrd.cpio" "$cmdline" "$directory/os-release" \
    "$version" "$directory/$name"
echo "$directory/$name: $version, $(wc -c < "$directory/$name") bytes, sha256 $(sha256sum < "$directory/$name" | cut -c 1-16)…"
