#!/bin/sh
# Builds a guest image: Debian's kernel of one flavour with some of its modules, busybox, and an initramfs, as a unified
# kernel image.
#
# usage: build.sh FLAVOUR DIRECTORY [PROGRAM...]      FLAVOUR: cloud-amd64 or amd64
#        PROGRAM...: static programs for the guest's /bin
# makes, for cloud-amd64: DIRECTORY/vmlinuz-cloud-amd64  initrd.cpio        guest.img
#        for amd64:       DIRECTORY/vmlinuz-amd64        initrd-amd64.cpio  guest-amd64.img
#                         vmlinux-amd64: the same kernel unpacked, which saves the guest three quarters of its boot
#
# The kernel is taken from $GUEST_KERNEL if set, else from /boot, else from a download made before, else from the Debian
# archive; its modules from the same version's package. Nothing is installed: packages are unpacked below DIRECTORY. A
# kernel given by hand whose modules nobody has makes an image without modules.
# The command line is $GUEST_CMDLINE, or the default below.
set -eu
export LC_ALL=C

[ $# -ge 2 ] || { echo "usage: $0 FLAVOUR DIRECTORY [PROGRAM...]" >&2; exit 2; }
flavour=$1
directory=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)

# Console on the serial port; restart instead of hanging after a panic, by the ACPI reset register; one UART and no PCI
# to probe. `cryptomgr.notests` leaves out the kernel's tests of its own cryptography: two thirds of all instructions
# of a boot, which matters on an interpreted processor only.
cmdline=${GUEST_CMDLINE-console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests}

fail() { echo "$0: $*" >&2; exit 1; }

unpack() { "$here/unpack-package.sh" "$directory/packages" "$@"; }
unreachable() {
    fail "cannot get the package $1. Is the Debian archive reachable (apt-get update)?" \
        "Or give a kernel by hand: make guest GUEST_KERNEL=/path/to/vmlinuz"
}

# unpack_kernel PACKAGE: the kernel, the guests' modules, and the list of what is built in.
unpack_kernel() {
    set -- "$1" './boot/vmlinuz-*' './lib/modules/*/modules.builtin'
    # Newer packages have compressed modules.
    for module in $modules; do set -- "$@" "./lib/modules/*/$module.ko*"; done
    unpack "$@" || return
    # For which list that was: a longer one later needs the package again.
    for root in "$directory"/packages/lib/modules/*-"$flavour"; do
        [ ! -d "$root" ] || echo "$modules" > "$root/unpacked"
    done
}

# The newest file of a pattern: versions in the names, so not in the order of the alphabet.
newest() { ls -1 "$@" 2>/dev/null | grep -E "/vmlinuz-[0-9.]+-[0-9]+-$flavour\$" | sort -V | tail -n 1; }

# version_of KERNEL
version_of() { basename "$1" | sed 's/^vmlinuz-//'; }

# Where the modules of a version are: unpacked here, or installed. An installed kernel that was removed leaves its lists.
modules_of() {
    root=$directory/packages/lib/modules/$1
    if [ "$(cat "$root/unpacked" 2> /dev/null)" = "$modules" ]; then
        echo "$root"
    elif [ -d "/lib/modules/$1/kernel" ]; then
        echo "/lib/modules/$1"
    fi
}

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
modules=$(sed 's/#.*//' "$here/modules" | awk -v flavour="$flavour" \
    '{ for (i = 2; i <= NF; i++) if ($i == flavour || $i == "all") { print $1; next } }')

kernel=${GUEST_KERNEL:-}
[ -n "$kernel" ] || kernel=$(newest /boot/vmlinuz-*-"$flavour" "$directory"/packages/boot/vmlinuz-*-"$flavour" || true)
if [ -n "$kernel" ] && [ -z "$(modules_of "$(version_of "$kernel")")" ]; then
    # A kernel without its modules: its package has them, if the archive still has that version.
    unpack_kernel "linux-image-$(version_of "$kernel")" || [ -n "${GUEST_KERNEL:-}" ] || kernel=
fi
if [ -z "$kernel" ]; then
    # linux-image-cloud-amd64 only names the newest real package.
    depends() { apt-cache depends "linux-image-$flavour" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
    package=$(depends)
    [ -n "$package" ] || { "$here/../../.ci/apt" update >&2 && package=$(depends); }
    [ -n "$package" ] || fail "apt knows no package linux-image-$flavour: is this Debian on amd64?"
    unpack_kernel "$package" || unreachable "$package"
    kernel=$(newest "$directory"/packages/boot/vmlinuz-*-"$flavour" || true)
fi
[ -r "$kernel" ] || fail "cannot read the kernel '$kernel'"

busybox=/bin/busybox
if ! dpkg-query -W -f '${Status}' busybox-static 2>/dev/null | grep -q '^install ok installed$'; then
    busybox=$directory/packages/bin/busybox
    [ -x "$busybox" ] || unpack busybox-static './bin/*' || unreachable busybox-static
fi
[ -x "$busybox" ] || fail "no busybox in the package busybox-static"

version=$(version_of "$kernel")
suffix=-$flavour
[ "$flavour" != cloud-amd64 ] || suffix=
name=guest$suffix.img
initrd=initrd$suffix.cpio

# The modules as they will be in the guest, with the lists that modprobe reads.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
installed=$(modules_of "$version")
if [ -n "$installed" ]; then
    target=$work/lib/modules/$version
    mkdir -p "$target"
    for module in $modules; do
        grep -q "/$module\.ko\$" "$installed/modules.builtin" && continue
        file=$(cd "$installed" && find kernel -name "$module.ko*" | head -n 1)
        if [ -z "$file" ]; then
            echo "The kernel $version has no module $module." >&2
            continue
        fi
        mkdir -p "$target/$(dirname "$file")"
        case $file in
        *.ko) cp "$installed/$file" "$target/$file" ;;
        *.ko.xz) xz -dc "$installed/$file" > "$target/${file%.xz}" ;;
        *) fail "the module $file is packed in an unknown way" ;;
        esac
    done
    "$busybox" depmod -b "$work" "$version"
    # In the order of the names, not of the folder.
    for list in modules.dep modules.alias; do
        sort "$target/$list" > "$work/sorted"
        cat "$work/sorted" > "$target/$list"
    done
    rm -f "$target/modules.symbols" "$work/sorted"
else
    echo "No modules of the kernel $version: the guest will have no virtio devices and no /dev/sev-guest." >&2
fi

cat > "$directory/os-release" <<END
ID=swift-snp-vmm-guest
NAME="swift-snp-vmm default guest"
PRETTY_NAME="Debian kernel $version with busybox"
VERSION_ID=$version
END

cp "$kernel" "$directory/vmlinuz-$flavour"
if [ "$flavour" = amd64 ]; then
    "$here/unpack-kernel.sh" "$kernel" "$directory/vmlinux-$flavour" || [ -n "${GUEST_KERNEL:-}" ]
fi
"$here/make-initramfs.sh" "$busybox" "$directory/$initrd" "$work/lib" "$@"
"$here/make-uki.sh" "$directory/vmlinuz-$flavour" "$directory/$initrd" "$cmdline" "$directory/os-release" \
    "$version" "$directory/$name"
echo "$directory/$name: $version, $(wc -c < "$directory/$name") bytes, sha256 $(sha256sum < "$directory/$name" | cut -c 1-16)…"
