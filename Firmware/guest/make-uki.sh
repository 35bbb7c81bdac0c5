#!/bin/sh
# Assembles a unified kernel image: a PE32+ file whose sections hold the kernel, the initrd and the command line under
# the names of the UKI specification. A container only: it has no EFI stub, so UEFI cannot start it, and needs none,
# because the VMM reads the sections. Every file offset equals its relative virtual address.
#
#   0x000  DOS header, 64 bytes: "MZ" … e_lfanew = 0x40
#   0x040  "PE\0\0", COFF header (20), optional header PE32+ (240), section table (40 each)
#   0x1000 .osrel  .uname  .cmdline  .linux  .initrd   each at a multiple of 4096
#
# usage: make-uki.sh KERNEL INITRD CMDLINE-TEXT OSREL-FILE UNAME-TEXT OUTPUT
set -eu
export LC_ALL=C

[ $# -eq 6 ] || { echo "usage: $0 KERNEL INITRD CMDLINE OSREL UNAME OUTPUT" >&2; exit 2; }
kernel=$1 initrd=$2 cmdline=$3 osrel=$4 uname=$5 output=$6
page=4096

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$osrel" "$work/osrel"
printf '%s' "$uname" > "$work/uname"
printf '%s' "$cmdline" > "$work/cmdline"

# bytes N VALUE: VALUE as N little-endian bytes.
bytes() {
    n=$1 value=$2
    while [ "$n" -gt 0 ]; do
        printf "\\$(printf '%03o' $((value & 255)))"
        value=$((value >> 8)) n=$((n - 1))
    done
}
zeros() { head -c "$1" /dev/zero; }
round() { echo $((($1 + page - 1) / page * page)); }
file_size() { wc -c < "$1" | tr -d ' '; }

names='.osrel .uname .cmdline .linux .initrd'
section_file() {
    case $1 in
    .osrel) echo "$work/osrel" ;;
    .uname) echo "$work/uname" ;;
    .cmdline) echo "$work/cmdline" ;;
    .linux) echo "$kernel" ;;
    .initrd) echo "$initrd" ;;
    esac
}

# The section table first: it tells how long the image is.
offset=$page
for name in $names; do
    size=$(file_size "$(section_file "$name")")
    printf '%s' "$name"
    zeros $((8 - ${#name}))
    bytes 4 "$size"                 # VirtualSize: the length of the contents
    bytes 4 "$offset"               # VirtualAddress
    bytes 4 "$(round "$size")"      # SizeOfRawData
    bytes 4 "$offset"               # PointerToRawData
    zeros 12                        # no relocations, no line numbers
    bytes 4 $((0x40000040))         # initialised data, readable
    offset=$((offset + $(round "$size")))
done > "$work/table"
image_size=$offset

{
    printf 'MZ'; zeros 58; bytes 4 $((0x40))
    printf 'PE'; zeros 2
    bytes 2 $((0x8664))             # machine: x86-64
    bytes 2 5                       # sections
    zeros 12                        # no time stamp, no symbols
    bytes 2 240                     # SizeOfOptionalHeader
    bytes 2 $((0x0022))             # executable, large addresses
    bytes 2 $((0x020B))             # PE32+
    zeros 2                         # linker version
    zeros 12                        # code, data, bss: none
    zeros 8                         # no entry point, no code
    bytes 8 0                       # ImageBase
    bytes 4 $page                   # SectionAlignment
    bytes 4 $page                   # FileAlignment
    zeros 16                        # versions
    bytes 4 "$image_size"           # SizeOfImage
    bytes 4 $page                   # SizeOfHeaders
    zeros 4                         # CheckSum
    bytes 2 10                      # subsystem: EFI application
    zeros 2                         # DllCharacteristics
    zeros 32                        # stack and heap
    zeros 4                         # LoaderFlags
    bytes 4 16                      # NumberOfRvaAndSizes
    zeros 128                       # data directories
    cat "$work/table"
} > "$work/headers"

{
    cat "$work/headers"
    zeros $((page - $(file_size "$work/headers")))
    for name in $names; do
        file=$(section_file "$name")
        size=$(file_size "$file")
        cat "$file"
        zeros $(($(round "$size") - size))
    done
} > "$output.part"
mv "$output.part" "$output"
