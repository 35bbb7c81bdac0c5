// CPUID as an AMD host with memory encryption answers it: programs ask the processor for the C-bit, not the kernel.
//
// When the library is loaded, every CPUID instruction of the main program becomes UD2, which is as long, and its SIGILL
// runs the real one and corrects the answer. An instruction is one only if decoding from the beginning of its function,
// which the program's unwind table names, arrives at it; what cannot be decoded stays as it is. Libraries are left alone:
// they look for instructions to use.

#include "CPreload.h"

#include <cpuid.h>
#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// MARK: Instruction lengths, 64-bit mode [APM3 1.2]

static int has_modrm_0f(uint8_t op) {
    if ((op >= 0x05 && op <= 0x0b) || op == 0x0e || (op >= 0x30 && op <= 0x37) || op == 0x77) return 0;
    if ((op & 0xf0) == 0x80 || (op >= 0xc8 && op <= 0xcf)) return 0;
    return !(op == 0xa0 || op == 0xa1 || op == 0xa2 || op == 0xa8 || op == 0xa9 || op == 0xaa);
}

static int immediate_0f(uint8_t op) {
    if ((op & 0xf0) == 0x80) return 4;
    return (op >= 0x70 && op <= 0x73) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 ||
                   (op >= 0xc4 && op <= 0xc6) || op == 0x0f
               ? 1
               : 0;
}

// One-byte opcodes: has ModRM 0x10, cannot be decoded 0x20, bytes of immediate, 8 = 2 or 4 by operand size, 9 = 4 or 8 by
// REX.W, 10 = address, 11 = group 3.
static int one_byte(uint8_t op) {
    if (op < 0x40) {
        switch (op & 7) {
        case 4: return 1;
        case 5: return 8;
        case 6: case 7: return 0x20;
        default: return 0x10;
        }
    }
    if (op < 0x60) return 0;
    if ((op & 0xf0) == 0x70) return 1;
    if (op >= 0xb0 && op <= 0xb7) return 1;
    if (op >= 0xb8 && op <= 0xbf) return 9;
    if (op >= 0xa0 && op <= 0xa3) return 10;
    if ((op >= 0xd0 && op <= 0xd3) || (op >= 0xd8 && op <= 0xdf)) return 0x10;
    switch (op) {
    case 0x63: case 0xfe: case 0xff: return 0x10;
    case 0x68: case 0xa9: return 8;
    case 0x69: case 0x81: case 0xc7: return 0x18;
    case 0x6b: case 0x80: case 0x83: case 0xc0: case 0xc1: case 0xc6: return 0x11;
    case 0x6a: case 0xa8: case 0xcd: case 0xeb: return 1;
    case 0xe0: case 0xe1: case 0xe2: case 0xe3: case 0xe4: case 0xe5: case 0xe6: case 0xe7: return 1;
    case 0xe8: case 0xe9: return 4;
    case 0xc2: case 0xca: return 2;
    case 0xc8: return 3;
    case 0xf6: case 0xf7: return 11;
    case 0x60: case 0x61: case 0x82: case 0x9a: case 0xce: case 0xd4: case 0xd5: case 0xd6: case 0xea: return 0x20;
    default: return op >= 0x84 && op <= 0x8f ? 0x10 : 0;
    }
}

// 0 where it cannot be told. `room`: bytes that may be looked at.
static size_t instruction_length(const uint8_t *start, size_t room) {
    if (room < 16) return 0;
    const uint8_t *p = start;
    int narrow = 0, wide = 0, short_address = 0;
    for (;; p++) {
        if (*p == 0x66) narrow = 1;
        else if (*p == 0x67) short_address = 1;
        else if (*p != 0xf0 && *p != 0xf2 && *p != 0xf3 && (*p & 0xe7) != 0x26 && *p != 0x64 && *p != 0x65) break;
        if (p - start > 10) return 0;
    }
    if ((*p & 0xf0) == 0x40) wide = *p++ >> 3 & 1;
    int map = 0;
    if (*p == 0xc5) {
        map = 1;
        p += 2;
    } else if (*p == 0xc4) {
        map = p[1] & 0x1f;
        p += 3;
    } else if (*p == 0x62) {
        map = p[1] & 7;
        p += 4;
    } else if (*p == 0x0f) {
        map = p[1] == 0x38 ? 2 : p[1] == 0x3a ? 3 : 1;
        p += map == 1 ? 1 : 2;
    }
    uint8_t op = *p++;
    int immediate = 0, modrm = 1;
    switch (map) {
    case 0: {
        int shape = one_byte(op);
        if (shape & 0x20) return 0;
        modrm = shape == 11 || (shape & 0x10);
        switch (shape & 0xf) {
        case 8: immediate = narrow && !wide ? 2 : 4; break;
        case 9: immediate = wide ? 8 : narrow ? 2 : 4; break;
        case 10: immediate = short_address ? 4 : 8; break;
        case 11: immediate = (*p & 0x38) > 8 ? 0 : op == 0xf6 ? 1 : narrow && !wide ? 2 : 4; break;
        default: immediate = shape & 0xf;
        }
        break;
    }
    case 1:
        modrm = has_modrm_0f(op);
        immediate = immediate_0f(op);
        break;
    case 2: case 5: case 6: break;
    case 3: immediate = 1; break;
    default: return 0;
    }
    if (modrm) {
        uint8_t m = *p++, mod = m >> 6;
        if (mod != 3) {
            if ((m & 7) == 4) {
                uint8_t sib = *p++;
                if (mod == 0 && (sib & 7) == 5) p += 4;
            } else if (mod == 0 && (m & 7) == 5) {
                p += 4;
            }
            p += mod == 1 ? 1 : mod == 2 ? 4 : 0;
        }
    }
    return (size_t)(p - start) + (size_t)immediate;
}

// MARK: The main program

static uintptr_t *patched;
static size_t patched_count;

static int is_patched(uintptr_t address) {
    for (size_t i = 0; i < patched_count; i++)
        if (patched[i] == address) return 1;
    return 0;
}

typedef struct {
    const uint8_t *header;  // .eh_frame_hdr: functions' beginnings, sorted, relative to itself.
    uint32_t function_count;
} functions;

static int32_t at(const functions *f, size_t index) {
    int32_t value;
    memcpy(&value, f->header + 12 + 8 * index, 4);
    return value;
}

// The beginning of the function that holds an address, or NULL.
static const uint8_t *function_of(const functions *f, const uint8_t *address) {
    size_t low = 0, high = f->function_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (f->header + at(f, middle) <= address) low = middle + 1;
        else high = middle;
    }
    return low == 0 ? NULL : f->header + at(f, low - 1);
}

static void patch_segment(const functions *f, uint8_t *start, size_t byte_count) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *end = start + byte_count;
    for (uint8_t *p = start; p + 1 < end && (p = memchr(p, 0x0f, (size_t)(end - p - 1))) != NULL; p++) {
        if (p[1] != 0xa2) continue;
        const uint8_t *at = function_of(f, p);
        if (at == NULL || at < start) continue;
        while (at < p) {
            size_t length = instruction_length(at, (size_t)(end - at));
            if (length == 0) break;
            at += length;
        }
        if (at != p) continue;
        uintptr_t *more = realloc(patched, (patched_count + 1) * sizeof *patched);
        if (more == NULL) return;
        patched = more;
        uint8_t *first = (uint8_t *)((uintptr_t)p & ~(page - 1));
        size_t span = (size_t)(p + 2 - first);
        // The program does not run yet: its pages need not be executable meanwhile.
        if (mprotect(first, span, PROT_READ | PROT_WRITE) != 0) return;
        p[1] = 0x0b;
        patched[patched_count++] = (uintptr_t)p;
        mprotect(first, span, PROT_READ | PROT_EXEC);
    }
}

static int patch_program(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size;
    (void)unused;
    functions f = {NULL, 0};
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
            f.header = (const uint8_t *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    // Version 1, a count of 4 bytes, a table relative to the header: what linkers write.
    if (f.header != NULL && f.header[0] == 1 && f.header[2] == 0x03 && f.header[3] == 0x3b) {
        memcpy(&f.function_count, f.header + 8, 4);
        for (int i = 0; i < info->dlpi_phnum; i++) {
            const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
            if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X))
                patch_segment(&f, (uint8_t *)info->dlpi_addr + segment->p_vaddr, segment->p_filesz);
        }
    }
    return 1;  // The main program is the first, and the only one.
}

// MARK: The answer

static void answer(int signal, siginfo_t *information, void *context) {
    (void)information;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (!is_patched((uintptr_t)r[REG_RIP])) {
        // Somebody else's: the instruction is repeated without us.
        struct sigaction none = {.sa_handler = SIG_DFL};
        sigaction(signal, &none, NULL);
        return;
    }
    uint32_t leaf = (uint32_t)r[REG_RAX], subleaf = (uint32_t)r[REG_RCX], a, b, c, d, vendor, unused;
    __cpuid_count(leaf, subleaf, a, b, c, d);
    __cpuid(0, unused, vendor, unused, unused);
    int is_amd = vendor == 0x68747541;
    switch (leaf) {
    case 0x80000000:
        if (a < 0x8000001f) a = 0x8000001f;
        __attribute__((fallthrough));  // The vendor.
    case 0:
        if (!is_amd) {
            b = 0x68747541;
            d = 0x69746e65;
            c = 0x444d4163;
        }
        break;
    case 1: if (!is_amd) a = snpvmm_preload_cpuid(leaf, 0, 0); break;
    // Where XSAVE's components lie: guests have those of the machine. Below, the widths of addresses.
    case 0xd: case 0x8000001f:
        a = snpvmm_preload_cpuid(leaf, subleaf, 0);
        b = snpvmm_preload_cpuid(leaf, subleaf, 1);
        c = snpvmm_preload_cpuid(leaf, subleaf, 2);
        d = snpvmm_preload_cpuid(leaf, subleaf, 3);
        break;
    case 0x80000008: a = snpvmm_preload_cpuid(leaf, 0, 0); break;
    }
    r[REG_RAX] = a;
    r[REG_RBX] = b;
    r[REG_RCX] = c;
    r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void take_over_cpuid(void) {
    if (preload_setting(4) == 0) return;
    dl_iterate_phdr(patch_program, NULL);
    if (patched_count == 0) return;
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigaction(SIGILL, &action, NULL);
}
