#!/bin/sh
# An encrypted disk that opens after attestation only: platform, owner and guest on one machine. The platform is the software
# one, which protects nothing; on an SNP host leave out --backend and --platform-state, and the certificates are AMD's.
#
# usage: run.sh SWIFT-SNP-VMM GUEST-DIRECTORY [FOLDER]      `make encrypted-disk` does that
#        FOLDER keeps disk, key, certificates and audit log; without it they go with the script
set -eu

[ $# -ge 2 ] || { echo "usage: $0 SWIFT-SNP-VMM GUEST-DIRECTORY [FOLDER]" >&2; exit 2; }
vmm=$1 guest=$2
if [ $# -ge 3 ]; then
    folder=$3
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
umask 077
platform="--backend software --platform-state $folder/platform"
kernel="--kernel $guest/vmlinux-amd64 --initrd $guest/encrypted-disk.cpio"
words="console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests snp.run=encrypted-disk"

# serve WORD RELEASES: the owner, who gives the key to the guest with this command line, so many times.
serve() {
    # shellcheck disable=SC2086
    "$vmm" owner serve $kernel --cmdline "$words $1" --secret disk="$folder/key" --vsock "$folder/vsock" \
        --trusted-root "$folder/certs/ark.pem" --audit-log "$folder/audit.jsonl" --launches "$2" > "$folder/owner.log" 2>&1 &
    owner=$!
    tries=0
    until grep -q 'waiting at' "$folder/owner.log"; do
        kill -0 $owner 2> /dev/null && [ $tries -lt 600 ] || { cat "$folder/owner.log" >&2; exit 1; }
        tries=$((tries + 1))
        sleep 0.1
    done
}

# boot WORDS: the guest, on the host; its disk and its way to the owner.
boot() {
    # shellcheck disable=SC2086
    "$vmm" run --quiet $platform $kernel --cmdline "$words $1" --disk "$folder/disk.img" --vsock "3,$folder/vsock" \
        < /dev/null 2>&1 | grep -a -E 'encrypted-disk|snp-guest-agent|warning' || true
    wait $owner || true
}

echo "== The owner: 32 random bytes as the key, and the root of this platform's certificates"
head -c 32 /dev/urandom > "$folder/key"
# shellcheck disable=SC2086
"$vmm" platform export-certs "$folder/certs" $platform 2> /dev/null
truncate -s 8M "$folder/disk.img"

echo
echo "== A guest that makes the volume: disk.format is on its measured command line"
serve disk.format 2
boot disk.format

echo
echo "== What the host has"
cmp -s -n 4 "$folder/disk.img" - << END && echo "disk.img: a LUKS volume"
LUKS
END
grep -a -c "under the oak" "$folder/disk.img" > /dev/null || echo "disk.img: the message is not in it"

echo
echo "== The guest that the owner expects opens it"
serve disk.open 1
boot disk.open

echo
echo "== One word more on the command line: another guest"
serve disk.open 1
boot "disk.open init=/bin/sh"

echo
echo "== The owner's audit log"
cat "$folder/audit.jsonl"
