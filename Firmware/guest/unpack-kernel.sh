#!/bin/sh
# Unpacks the ELF file inside a bzImage, whose payload must be XZ-compressed as in Debian's amd64 kernels. An interpreted
# processor takes longer to do that than to boot what comes out.
#
#   0x1F1  setup_sects        the protected-mode part starts at (setup_sects + 1) * 512
#   0x248  payload_offset     from there on
#   0x24C  payload_length     whose last four bytes tell the unpacked length
#
# usage: unpack-kernel.sh BZIMAGE OUTPUT
set -eu
export LC_ALL=C

[ $# -eq 2 ] || { echo "usage: $0 BZIMAGE OUTPUT" >&2; exit 2; }
kernel=$1 output=$2

# field OFFSET BYTES: a little-endian number.
field() { od -A n -t "u$2" -j "$1" -N "$2" "$kernel" | tr -d ' '; }

start=$((($(field $((0x1f1)) 1) + 1) * 512 + $(field $((0x248)) 4)))
length=$(field $((0x24c)) 4)
tail -c "+$((start + 1))" "$kernel" | head -c $((length - 4)) | xz -dc > "$output.part" ||
    { echo "$0: the payload of $kernel is not XZ" >&2; exit 1; }
mv "$output.part" "$output"
