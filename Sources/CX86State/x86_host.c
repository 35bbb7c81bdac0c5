// The rest of x86_host.h: which instructions the host has, and floating-point uops by number under the guest's MXCSR.
#include "x86_host.h"

#if defined(__x86_64__)
#include <cpuid.h>

uint32_t x86_host_features(void) {
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (c & 1u << 19) features |= X86_HOST_FLOAT;
    if (c & 1u << 25) features |= X86_HOST_AES;
    if (c & 1u << 1) features |= X86_HOST_PCLMULQDQ;
    uint32_t avx = 0;
    if ((c & 1u << 27) && (c & 1u << 28)) {  // OSXSAVE and AVX; XCR0 tells whether the kernel keeps the upper halves.
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        avx = (low & 6) == 6;
    }
    if (avx) {
        features |= X86_HOST_AVX;
        if (c & 1u << 12) features |= X86_HOST_FMA;
        if (c & 1u << 29) features |= X86_HOST_F16C;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && b & 1u << 29) features |= X86_HOST_SHA;
    return features;
}

// The same fields as `FloatCode`: 7:0 opcode, 8 binary64, 9 scalar (9:8 the prefix), 10 W, 12 VEX, 13 256 bits, 23:16
// immediate.
#define OPCODE(code) ((unsigned)(code) & 0xff)
#define PREFIX(code) ((unsigned)((code) >> 8) & 3)
#define IMMEDIATE(code) ((unsigned)((code) >> 16) & 0xff)

#define TWO(name, a, b) __asm__ volatile(name " %1, %0" : "+x"(a) : "x"(b))
#define ONE(name, r, b) __asm__ volatile(name " %1, %0" : "=x"(r) : "x"(b))
#define BY_TYPE(name) \
    switch (type) { \
        case 0: TWO(name "ps", a, b); break; \
        case 1: TWO(name "pd", a, b); break; \
        case 2: TWO(name "ss", a, b); break; \
        default: TWO(name "sd", a, b); break; \
    }

// CMPPS and kin. SSE has the first eight predicates, AVX all of them.
static int compare(int type, unsigned predicate, uint32_t features, x86_v128 *r, x86_v128 a, x86_v128 b) {
    if (predicate >= 8 && !(features & X86_HOST_AVX)) return 0;
    switch (predicate) {
#define SSE_PREDICATE(n, name) case n: BY_TYPE("cmp" name) break;
        SSE_PREDICATE(0, "eq")
        SSE_PREDICATE(1, "lt")
        SSE_PREDICATE(2, "le")
        SSE_PREDICATE(3, "unord")
        SSE_PREDICATE(4, "neq")
        SSE_PREDICATE(5, "nlt")
        SSE_PREDICATE(6, "nle")
        SSE_PREDICATE(7, "ord")
#define VEX_TWO(name, n) __asm__ volatile(name " $" #n ", %1, %0, %0" : "+x"(a) : "x"(b))
#define VEX_PREDICATE(n) \
    case n: \
        switch (type) { \
            case 0: VEX_TWO("vcmpps", n); break; \
            case 1: VEX_TWO("vcmppd", n); break; \
            case 2: VEX_TWO("vcmpss", n); break; \
            default: VEX_TWO("vcmpsd", n); break; \
        } \
        break;
        VEX_PREDICATE(8)
        VEX_PREDICATE(9)
        VEX_PREDICATE(10)
        VEX_PREDICATE(11)
        VEX_PREDICATE(12)
        VEX_PREDICATE(13)
        VEX_PREDICATE(14)
        VEX_PREDICATE(15)
        VEX_PREDICATE(16)
        VEX_PREDICATE(17)
        VEX_PREDICATE(18)
        VEX_PREDICATE(19)
        VEX_PREDICATE(20)
        VEX_PREDICATE(21)
        VEX_PREDICATE(22)
        VEX_PREDICATE(23)
        VEX_PREDICATE(24)
        VEX_PREDICATE(25)
        VEX_PREDICATE(26)
        VEX_PREDICATE(27)
        VEX_PREDICATE(28)
        VEX_PREDICATE(29)
        VEX_PREDICATE(30)
        VEX_PREDICATE(31)
    }
    *r = a;
    return 1;
}

// x × y + z. NaNs are chosen in this order, which is what makes the one form stand for all three.
static x86_v128 fused(int type, int negatesProduct, int subtracts, int alternates, x86_v128 x, x86_v128 y, x86_v128 z) {
#define FUSED(name) __asm__ volatile(name " %2, %1, %0" : "+x"(z) : "x"(x), "x"(y))
#define FUSED_BY_TYPE(name) \
    switch (type) { \
        case 0: FUSED(name "ps"); break; \
        case 1: FUSED(name "pd"); break; \
        case 2: FUSED(name "ss"); break; \
        default: FUSED(name "sd"); break; \
    }
    if (alternates) {
        if (type & 1) {
            if (subtracts) { FUSED("vfmsubadd231pd"); } else { FUSED("vfmaddsub231pd"); }
        } else {
            if (subtracts) { FUSED("vfmsubadd231ps"); } else { FUSED("vfmaddsub231ps"); }
        }
    } else if (negatesProduct) {
        if (subtracts) { FUSED_BY_TYPE("vfnmsub231") } else { FUSED_BY_TYPE("vfnmadd231") }
    } else {
        if (subtracts) { FUSED_BY_TYPE("vfmsub231") } else { FUSED_BY_TYPE("vfmadd231") }
    }
    return z;
}

// The lowest element from `v`, the rest from `under`.
static x86_v128 onto(int isDouble, x86_v128 under, x86_v128 v) {
    under.x = isDouble ? v.x : (under.x & ~0xffffffffull) | (v.x & 0xffffffffull);
    return under;
}

static x86_v128 rounded(int type, unsigned how, x86_v128 a, x86_v128 b) {
#define ROUND(n) \
    case n: \
        switch (type) { \
            case 0: __asm__ volatile("roundps $" #n ", %1, %0" : "=x"(a) : "x"(b)); break; \
            case 1: __asm__ volatile("roundpd $" #n ", %1, %0" : "=x"(a) : "x"(b)); break; \
            case 2: __asm__ volatile("roundss $" #n ", %1, %0" : "+x"(a) : "x"(b)); break; \
            default: __asm__ volatile("roundsd $" #n ", %1, %0" : "+x"(a) : "x"(b)); break; \
        } \
        break;
    // The mode, or 4: MXCSR's; and 8: no precision exception.
    switch (how & 4 ? how & 12 : how & 11) {
        ROUND(0)
        ROUND(1)
        ROUND(2)
        ROUND(3)
        ROUND(4)
        ROUND(8)
        ROUND(9)
        ROUND(10)
        ROUND(11)
        ROUND(12)
    }
    return a;
}

static uint32_t current(void) {
    uint32_t v;
    __asm__ volatile("stmxcsr %0" : "=m"(v));
    return v;
}

// Runs with the guest's MXCSR. 0: not done here.
static int perform(
    uint64_t code, uint32_t features, x86_v128 *r, const x86_v128 *a, const x86_v128 *b, const x86_v128 *c
) {
    int type = (int)PREFIX(code), isDouble = type & 1, isScalar = type & 2;
    int wide = code & 0x2000 ? 1 : 0, integer64 = code & 0x400 ? 1 : 0;
    unsigned opcode = OPCODE(code), imm = IMMEDIATE(code);
    x86_v128 t;
    switch (opcode) {
        case 0x51: case 0x58: case 0x59: case 0x5c: case 0x5d: case 0x5e: case 0x5f: {
            int operation = opcode == 0x51 ? X86_SQRT : opcode == 0x58 ? X86_ADD : opcode == 0x59 ? X86_MUL
                : (int)opcode - 0x5c + X86_SUB;
            for (int i = 0; i <= wide; i++) r[i] = x86_host_arithmetic(operation, type, a[i], b[i]);
            return 1;
        }
        case 0xc2: {
            unsigned predicate = imm & (code & 0x1000 ? 31 : 7);
            for (int i = 0; i <= wide; i++) {
                if (!compare(type, predicate, features, &r[i], a[i], b[i])) return 0;
            }
            return 1;
        }
        case 0x2e: case 0x2f:
            r[0].x = x86_host_compare(isDouble, opcode == 0x2f, c[0], b[0]);
            return 1;
        case 0x2a:
            if (!isScalar) return 0;
            r[0] = x86_host_from_integer(isDouble, integer64, a[0], b[0].x);
            return 1;
        case 0x2c: case 0x2d:
            if (!isScalar) return 0;
            r[0].x = x86_host_to_integer(isDouble, integer64, opcode == 0x2c, b[0]);
            return 1;
        case 0x5a:
            switch (type) {
                case 0:
                    ONE("cvtps2pd", r[0], b[0]);
                    if (wide) {
                        t = (x86_v128){b[0].y, 0};
                        ONE("cvtps2pd", r[1], t);
                    }
                    break;
                case 1:
                    ONE("cvtpd2ps", r[0], b[0]);
                    if (wide) {
                        ONE("cvtpd2ps", t, b[1]);
                        r[0].y = t.x;
                    }
                    break;
                default: r[0] = x86_host_scalar_format(isDouble, a[0], b[0]); break;
            }
            return 1;
        case 0x5b:
            for (int i = 0; i <= wide; i++) {
                switch (type) {
                    case 0: ONE("cvtdq2ps", r[i], b[i]); break;
                    case 1: ONE("cvtps2dq", r[i], b[i]); break;
                    default: ONE("cvttps2dq", r[i], b[i]); break;
                }
            }
            return 1;
        case 0xe6:
            if (type == 2) {
                ONE("cvtdq2pd", r[0], b[0]);
                if (wide) {
                    t = (x86_v128){b[0].y, 0};
                    ONE("cvtdq2pd", r[1], t);
                }
                return 1;
            }
            for (int i = 0; i <= wide; i++) {
                if (type == 1) { ONE("cvttpd2dq", t, b[i]); } else { ONE("cvtpd2dq", t, b[i]); }
                if (i == 0) r[0] = t; else r[0].y = t.x;
            }
            return 1;
        case 0x7c: case 0x7d: case 0xd0:
            for (int i = 0; i <= wide; i++) {
                r[i] = a[i];
#define EITHER(name) \
    if (isDouble) { TWO(name "pd", r[i], b[i]); } else { TWO(name "ps", r[i], b[i]); }
                if (opcode == 0x7c) { EITHER("hadd") } else if (opcode == 0x7d) { EITHER("hsub") } else { EITHER("addsub") }
            }
            return 1;
        case 0x08:
            for (int i = 0; i <= wide; i++) r[i] = rounded(type, imm & 15, a[i], b[i]);
            return 1;
        case 0x13:
            if (!(features & X86_HOST_F16C)) return 0;
            ONE("vcvtph2ps", r[0], b[0]);
            if (wide) {
                t = (x86_v128){b[0].y, 0};
                ONE("vcvtph2ps", r[1], t);
            }
            return 1;
        default: break;
    }
    if (opcode < 0x96 || opcode > 0xbf || !(features & X86_HOST_FMA)) return 0;
    int order = (int)(opcode >> 4) - 9, low = opcode & 15;
    if (low < 6) return 0;
    int alternates = low < 8, negatesProduct = low >= 12;
    // 6 MADDSUB, 7 MSUBADD, 8 and 9 MADD, 10 and 11 MSUB, 12 and 13 NMADD, 14 and 15 NMSUB.
    int subtracts = alternates ? low == 7 : low & 2 ? 1 : 0;
    for (int i = 0; i <= wide; i++) {
        // `c` is the first operand of the instruction, `a` the second, `b` the third.
        x86_v128 x = order == 1 ? a[i] : order == 0 ? c[i] : a[i];
        x86_v128 y = order == 1 ? c[i] : b[i];
        x86_v128 z = order == 0 ? a[i] : order == 1 ? b[i] : c[i];
        x86_v128 v = fused(type, negatesProduct, subtracts, alternates, x, y, z);
        r[i] = isScalar ? onto(isDouble, c[i], v) : v;
    }
    return 1;
}

int x86_host_float(
    uint64_t code, uint32_t features, uint32_t mxcsr, x86_v128 *r, const x86_v128 *a, const x86_v128 *b,
    const x86_v128 *c
) {
    // Rounding, FTZ, DAZ and masks of the guest; no flags.
    uint32_t guest = mxcsr & 0xffc0, host = current() & ~0x3fu, seen;
    r[0] = r[1] = (x86_v128){0, 0};
    if ((host & 0xffc0) == guest) {
        // Under the host's own, which says the same: enough if the guest has all flags that came up.
        if (!perform(code, features, r, a, b, c)) return -1;
        if (!(current() & ~mxcsr & 0x3f)) return 0;
    }
    __asm__ volatile("ldmxcsr %0" : : "m"(guest));
    int done = perform(code, features, r, a, b, c);
    seen = current();
    // The host goes on without flags: those of the next instructions are seen to be new.
    __asm__ volatile("ldmxcsr %0" : : "m"(host));
    return done ? (int)(seen & 0x3f) : -1;
}

#else

uint32_t x86_host_features(void) { return 0; }

int x86_host_float(
    uint64_t code, uint32_t features, uint32_t mxcsr, x86_v128 *r, const x86_v128 *a, const x86_v128 *b,
    const x86_v128 *c
) {
    return -1;
}

#endif
