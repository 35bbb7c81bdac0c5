# make run     installs what is missing, builds, and boots the default guest (Debian's kernel and a shell) as an SNP guest
# make test    installs what is missing, builds, and runs every test
# make check   the whole gate; needs only a laptop
# make bench   boots the same guest under QEMU's emulator and under us, in turn, and compares
# make encrypted-disk   boots a guest whose disk opens after attestation only
#
# Others: conformance-cpu, header-truth, preload, kvm-selftests, qemu-guests, guest, guest-amd64, guest-debian, firmware, fmt, fuzz, audit-unsafe, deps, clean.
# Variables: ARGS for run, FUZZ_ARGS, BENCH_ARGS, GUEST_KERNEL and GUEST_CMDLINE for guest.

SWIFT ?= swift
# Without colours the flags are the same on a terminal and in a log, and nothing is built twice.
SWIFT_BUILD = $(SWIFT) build -c release --no-color-diagnostics
BIN = .build/release
GUEST = .guest
FUZZ_ARGS ?= --rounds 100
CONFORMANCE_ARGS ?= --passes 2 --random 10400000
GUEST_SOURCES = $(wildcard Firmware/guest/*)
AGENT_SOURCES = $(shell find Sources/snp-guest-agent Sources/GuestAgent Sources/CGuestAgent Sources/SecretRelease \
    Sources/Crypto Sources/SEVABI Sources/KVMABI Sources/CProcess Sources/ABILayout -name '*.swift' -o -name '*.[ch]')
# Generated code is as its generator writes it.
SWIFT_FILES = Package.swift $(shell find Sources Tests Examples Firmware -name '*.swift' -not -path '*/Generated/*')

# One thing at a time: two targets may both want apt, or the build folder.
.NOTPARALLEL:

.PHONY: run build test check bench conformance-cpu header-truth preload kvm-selftests qemu-guests guest guest-amd64 guest-debian firmware fmt fmt-check fuzz fuzz-smoke hot-loop audit-unsafe \
        encrypted-disk deps deps-guest deps-bench deps-peers deps-qemu deps-report clean

run: build guest
	$(BIN)/swift-snp-vmm run $(GUEST)/guest.img $(ARGS)

build: deps
	$(SWIFT_BUILD) --product swift-snp-vmm

# Built first by itself: `swift test` alone would build everything anew, for tests that import the insides of modules.
# There are none here.
test: deps deps-report deps-peers guest firmware
	$(SWIFT_BUILD) --build-tests
	$(SWIFT) test -c release --no-color-diagnostics --skip-build

# Cheap checks first; every one fails the target.
check: deps
	$(MAKE) fmt-check
	$(MAKE) audit-unsafe
	$(MAKE) build
	$(MAKE) hot-loop
	$(MAKE) test
	$(MAKE) fuzz-smoke

bench: build guest deps-bench
	$(SWIFT_BUILD) --product bench
	$(BIN)/bench $(BENCH_ARGS)

# The CPU engine against the processor this runs on: every opcode form, then random cases. Minutes; CONFORMANCE_ARGS for
# another seed or number.
conformance-cpu: deps
	$(SWIFT_BUILD) --product conformance
	$(BIN)/conformance $(CONFORMANCE_ARGS)

# The kernel's interface as we write it, against the newest kernel headers that there is a package of.
header-truth: deps
	.ci/header-truth

# The software kernel for other programs: LD_PRELOAD=$(BIN)/libsnpvmm-preload.so.
preload: deps
	$(SWIFT_BUILD) --product snpvmm-preload

# KVM's own selftests, of Debian's kernel source, on the software kernel.
kvm-selftests: preload
	.ci/kvm-selftests $(BIN)/libsnpvmm-preload.so

# Debian's QEMU on the software kernel: plain, SEV and SEV-ES guests to the end of Linux's start.
qemu-guests: preload guest deps-qemu
	.ci/qemu-guests $(BIN)/libsnpvmm-preload.so $(GUEST)/vmlinuz-cloud-amd64 $(GUEST)/initrd.cpio

# The guest images. They are rebuilt when their scripts change, after `make clean`, or when a kernel or a command line is
# given for them.
guest: $(GUEST)/guest.img
guest-amd64: $(GUEST)/guest-amd64.img

ifneq ($(GUEST_KERNEL)$(GUEST_CMDLINE),)
.PHONY: $(GUEST)/guest.img $(GUEST)/guest-amd64.img
endif

$(GUEST)/guest.img: $(GUEST_SOURCES) | deps-guest
	Firmware/guest/build.sh cloud-amd64 $(GUEST)

$(GUEST)/guest-amd64.img: $(GUEST_SOURCES) $(AGENT_SOURCES) | deps deps-guest
	$(SWIFT_BUILD) --product snp-guest-agent
	Firmware/guest/build.sh amd64 $(GUEST) $(BIN)/snp-guest-agent

# Debian's programs behind the default guest's initramfs, and as a folder for the host: tests run them in both places.
guest-debian: $(GUEST)/debian.cpio

$(GUEST)/debian.cpio: $(GUEST)/guest.img $(wildcard Tests/DebianGuest/*) | deps deps-guest
	Tests/DebianGuest/build.sh $(GUEST)

# A disk that opens after attestation only, from making it to refusing it.
encrypted-disk: build $(GUEST)/encrypted-disk.cpio
	Examples/EncryptedDisk/run.sh $(BIN)/swift-snp-vmm $(GUEST)

$(GUEST)/encrypted-disk.cpio: $(GUEST)/guest-amd64.img $(wildcard Examples/EncryptedDisk/*)
	Examples/EncryptedDisk/make-initrd.sh $(GUEST)

firmware:
	$(MAKE) --no-print-directory -C Firmware

fmt:
	@$(SWIFT) format format --in-place --parallel $(SWIFT_FILES)

fmt-check:
	@$(SWIFT) format lint --strict --parallel $(SWIFT_FILES) && echo "format: fine"

# Some minutes; FUZZ_ARGS='--seed 7 --rounds 1000' for another and longer run.
fuzz: deps firmware
	$(SWIFT_BUILD) --product fuzz
	$(BIN)/fuzz $(FUZZ_ARGS) all

fuzz-smoke: deps
	$(SWIFT_BUILD) --product fuzz
	$(BIN)/fuzz smoke

# The engine's handlers must not allocate, count references or check exclusivity, and must not call through pointers.
hot-loop: build
	.ci/check-hot-loop $(BIN)/swift-snp-vmm

# Lists every use of `unsafe` and fails on one outside the modules that may have them.
audit-unsafe:
	.ci/audit-unsafe

deps:
	@.ci/deps git=git libssl-dev=/usr/include/openssl/evp.h pkgconf=pkg-config linux-libc-dev=/usr/include/linux/kvm.h

deps-guest:
	@.ci/deps cpio=cpio xz-utils=xz

deps-bench: deps-guest
	@.ci/deps qemu-system-x86=qemu-system-x86_64
	@.ci/bench-peers .build/bench-peers || echo "No Python peers: the benchmarks compare with libcrypto alone."

# Where there is none to install, the boots are skipped.
deps-qemu:
	@.ci/deps qemu-system-x86=qemu-system-x86_64 ovmf=/usr/share/OVMF/OVMF_CODE.fd || \
	    echo "No QEMU or no OVMF: their guests are skipped."

# A browser, to look at the page of `run --report`. Where there is none to install, those tests are skipped.
deps-report:
	@command -v chromium > /dev/null || .ci/deps chromium-headless-shell=chromium-headless-shell || \
	    echo "No Chromium: the tests that look at the report are skipped."

# Verifiers that others wrote, for the tests that ask them too. Where PyPI is out of reach, those tests are skipped.
deps-peers:
	@.ci/deps python3=python3
	@.ci/peers

clean:
	rm -rf .build .peers Firmware/build $(GUEST)/debian $(GUEST)/*.img $(GUEST)/*.cpio $(GUEST)/vmlinu[xz]-*
