#!/bin/sh
# Downloads a Debian package with apt and unpacks what matches below a directory. Nothing is installed.
#
# usage: unpack-package.sh DIRECTORY PACKAGE PATTERN...        e.g. unpack-package.sh .guest/packages busybox-static './bin/*'
set -eu

[ $# -ge 3 ] || { echo "usage: $0 DIRECTORY PACKAGE PATTERN..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
package=$2
shift 2

echo "Downloading $package with apt…" >&2
rm -f "$package"_*.deb
if ! apt-get download -q -q "$package" >&2; then
    "$here/../../.ci/apt" update >&2
    apt-get download -q -q "$package" >&2
fi
dpkg-deb --fsys-tarfile "$package"_*.deb > "$package.tar"
rm -f "$package"_*.deb
# A pattern that nothing matches is no failure: what is missing is noticed where it is wanted.
tar -x --wildcards -f "$package.tar" "$@" 2>&1 | grep -v -e 'Not found in archive' -e 'previous errors' >&2 || true
rm -f "$package.tar"
