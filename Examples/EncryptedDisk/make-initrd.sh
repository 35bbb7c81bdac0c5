#!/bin/sh
# The initrd of the encrypted-disk guest: the amd64 guest's, and behind it an archive with Debian's cryptsetup, the libraries
# it needs, and the script `encrypted-disk`. The kernel unpacks one archive after the other. The same inputs give the same
# bytes.
#
# usage: make-initrd.sh GUEST-DIRECTORY         made by `make guest-amd64`; leaves encrypted-disk.cpio there
set -eu
export LC_ALL=C

[ $# -eq 1 ] || { echo "usage: $0 GUEST-DIRECTORY" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
directory=$(cd "$1" && pwd)
packages=$directory/packages/cryptsetup
fail() { echo "$0: $*" >&2; exit 1; }

[ -r "$directory/initrd-amd64.cpio" ] || fail "no initrd-amd64.cpio in $directory: run make guest-amd64"

if [ ! -e "$packages/complete" ]; then
    needed() {
        apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances cryptsetup-bin 2> /dev/null | grep '^[a-z]' | sort -u
    }
    names=$(needed)
    [ -n "$names" ] || { "$here/../../.ci/apt" update >&2 && names=$(needed); }
    [ -n "$names" ] || fail "apt knows no package cryptsetup-bin: is this Debian?"
    for name in $names; do
        "$here/../../Firmware/guest/unpack-package.sh" "$packages" "$name" '*/cryptsetup' '*.so.*' ||
            fail "cannot get the package $name. Is the Debian archive reachable?"
    done
    touch "$packages/complete"
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022
program=$(find "$packages" -name cryptsetup -type f | head -n 1)
loader=$(find "$packages" -name 'ld-linux-x86-64.so.2' | head -n 1)
[ -n "$program" ] && [ -n "$loader" ] || fail "the packages in $packages have no cryptsetup or no dynamic loader"
libraries=$(dirname "$(find "$packages" -name 'libcryptsetup.so.*' | head -n 1)")
libraries=$libraries:$(dirname "$(find "$packages" -name 'libcrypto.so.*' | head -n 1)"):$(dirname "$loader")

# The package's own loader lists what the program loads, wherever this runs. libgcc_s is loaded later, by name.
mkdir -p "$root/bin" "$root/lib/x86_64-linux-gnu" "$root/lib64"
cp "$program" "$root/bin/cryptsetup"
"$loader" --library-path "$libraries" --list "$program" | sed -n 's/.* => \(.*\) (0x.*/\1/p' | sort > "$root/list"
find "$packages" -name 'libgcc_s.so.1' >> "$root/list"
while read -r file; do
    case $file in
    "$packages"/*) cp -L "$file" "$root/lib/x86_64-linux-gnu/" ;;
    *) fail "cryptsetup wants $file, which is in none of its packages" ;;
    esac
done < "$root/list"
cp -L "$loader" "$root/lib64/ld-linux-x86-64.so.2"
rm "$root/list"
cp "$here/encrypted-disk" "$root/bin/encrypted-disk"
find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -exec chmod 644 {} +
chmod 755 "$root/bin/"* "$root/lib64/"*

output=$directory/encrypted-disk.cpio
{
    cat "$directory/initrd-amd64.cpio"
    cd "$root"
    find . -exec touch -h -d @0 {} +
    find . | sort | cpio --quiet --create --format=newc --owner=+0:+0 --reproducible
} > "$output.part"
mv "$output.part" "$output"
echo "$output: $(wc -c < "$output") bytes, sha256 $(sha256sum < "$output" | cut -c 1-16)…"
