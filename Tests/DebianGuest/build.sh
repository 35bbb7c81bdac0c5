#!/bin/sh
# A second initramfs of the default guest: behind the first archive one with Debian's programs, with every library that their
# packages want, and with the test programs of this folder, all below /debian; and the same tree as a folder, so that the
# host can run the same files. Nothing is installed: packages are unpacked below GUEST-DIRECTORY.
#
# usage: build.sh GUEST-DIRECTORY     made by `make guest`; leaves debian.cpio and the folder debian there
set -eu
export LC_ALL=C

[ $# -eq 1 ] || { echo "usage: $0 GUEST-DIRECTORY" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
directory=$(cd "$1" && pwd)
packages=$directory/packages/debian
fail() { echo "$0: $*" >&2; exit 1; }

[ -r "$directory/initrd.cpio" ] || fail "no initrd.cpio in $directory: run make guest"
compiler=$(command -v cc || command -v clang) || fail "no C compiler: install gcc"
[ -e /usr/include/openssl/evp.h ] || fail "no headers of OpenSSL: install libssl-dev"

wanted="dash coreutils diffutils grep sed mawk gzip bzip2 xz-utils zstd bc sqlite3 openssl perl-base python3.11-minimal
    libpython3.11-stdlib"
# What has to be installed for these where nothing is.
needed() {
    # shellcheck disable=SC2086
    apt-get -o Dir::State::status=/dev/null --simulate --no-install-recommends install $wanted 2> /dev/null |
        sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p' | sort
}
if [ "$(cat "$packages/complete" 2> /dev/null)" != "$wanted" ]; then
    names=$(needed)
    [ -n "$names" ] || { "$here/../../.ci/apt" update >&2 && names=$(needed); }
    [ -n "$names" ] || fail "apt cannot tell what these need: $wanted. Is this Debian 12?"
    rm -rf "$packages"
    mkdir -p "$packages/files" "$packages/archives"
    echo "Downloading $(echo "$names" | wc -l) packages with apt…" >&2
    # shellcheck disable=SC2086
    if ! (cd "$packages/archives" && apt-get download -q -q $names >&2); then
        "$here/../../.ci/apt" update >&2
        # shellcheck disable=SC2046
        (cd "$packages/archives" && apt-get download -q -q $(needed) >&2) ||
            fail "cannot get the packages. Is the Debian archive reachable?"
    fi
    for package in "$packages"/archives/*.deb; do
        # What no program of the suite reads stays away: the guest has all of it in memory.
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$packages/files" --exclude='./usr/share/*' --exclude='./etc/*' \
            --exclude='./var/*' --exclude='./usr/lib/x86_64-linux-gnu/gconv' --exclude='*/perl-base/unicore/lib' \
            --exclude='*/lib2to3' --exclude='*/unittest' --exclude='*/idlelib' --exclude='*/tkinter' --exclude='*/pydoc_data' \
            --exclude='./usr/sbin/*' --exclude='./sbin/*' --exclude='./usr/bin/dpkg*' --exclude='*/libdb-5*' \
            --exclude='*/bin/perl5.*' --exclude='*/bin/pzstd'
    done
    rm -rf "$packages/archives"
    echo "$wanted" > "$packages/complete"
fi

# A tree in which both the guest and the host can run the suite.
root=$directory/debian.part
rm -rf "$root" "$directory/debian"
cp -R -P "$packages/files" "$root"
mkdir -p "$root/tmp" "$root/suite" "$root/bin" "$root/usr/bin" "$root/lib64" "$root/etc/ssl"
[ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
ln -sf python3.11 "$root/usr/bin/python3"
ln -sf mawk "$root/usr/bin/awk"
suite=$root/suite
for file in suite numbers.bc numbers.py numbers.pl tables.sql; do cp "$here/$file" "$suite/$file"; done
: > "$suite/empty"
: > "$root/etc/ssl/openssl.cnf"

# compile OUTPUT SOURCE [OPTION...]: libraries last.
compile() {
    output=$1 source=$here/$2
    shift 2
    "$compiler" -O2 -o "$suite/$output" "$source" "$@"
}
exact="-fno-builtin -frounding-math -ffp-contract=off"
# shellcheck disable=SC2086
{
    compile math math.c $exact -lm
    compile math-v3 math.c $exact -march=x86-64-v3 -lm
    compile math-static math.c $exact -static -lm
}
compile text text.c -fno-builtin
compile text-static text.c -fno-builtin -static
compile vector vector.c -mavx2 -lmvec -lm
compile crypto crypto.c -lcrypto
compile ia32 ia32.c -m32 -O1 -ffreestanding -fno-pic -fno-pie -fno-omit-frame-pointer -fno-stack-protector -msse \
    -fno-asynchronous-unwind-tables -nostdlib -static
compile processes processes.c -mcx16 -pthread -lm
compile processes-static processes.c -mcx16 -pthread -static -lm
# A library in two versions, of which the loader takes the one for the processor.
libraries=$root/usr/lib/x86_64-linux-gnu
mkdir -p "$libraries/glibc-hwcaps/x86-64-v3"
"$compiler" -O3 -shared -fPIC -Wl,-soname,liblevel.so -o "$libraries/liblevel.so" "$here/level.c" -lm
"$compiler" -O3 -march=x86-64-v3 -shared -fPIC -Wl,-soname,liblevel.so \
    -o "$libraries/glibc-hwcaps/x86-64-v3/liblevel.so" "$here/level.c" -lm
compile level level-main.c -L"$libraries" -llevel

archive=$(mktemp -d)
trap 'rm -rf "$archive"' EXIT
umask 022
mkdir -p "$archive/bin"
cp "$here/debian-programs" "$archive/bin/debian-programs"
chmod 755 "$archive/bin/debian-programs"
find "$root" -type d -exec chmod 755 {} +
chmod 755 "$suite"/*
cp -R -P "$root" "$archive/debian"
output=$directory/debian.cpio
{
    cat "$directory/initrd.cpio"
    cd "$archive"
    find . -exec touch -h -d @0 {} +
    find . | sort | cpio --quiet --create --format=newc --owner=+0:+0 --reproducible
} > "$output.part"
mv "$root" "$directory/debian"
mv "$output.part" "$output"
echo "$output: $(wc -c < "$output") bytes, sha256 $(sha256sum < "$output" | cut -c 1-16)…"
