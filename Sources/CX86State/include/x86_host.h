// The host's own vector arithmetic, where the host is an x86 processor: an SSE instruction of the guest is that instruction
// of the host, results, NaNs and MXCSR flags included. Each operation is a volatile asm, so that it stays on its side of
// the reads and writes of MXCSR. Elsewhere X86_HOST_ARITHMETIC is 0 and nothing of this is called.
#pragma once
#include "x86_state.h"

typedef unsigned long long x86_v128 __attribute__((ext_vector_type(2)));

// What the host's processor has, and may be asked for.
enum {
    X86_HOST_FLOAT = 1,        // SSE to SSE4.1
    X86_HOST_AVX = 2,
    X86_HOST_FMA = 4,
    X86_HOST_F16C = 8,
    X86_HOST_AES = 16,
    X86_HOST_PCLMULQDQ = 32,
    X86_HOST_SHA = 64,
};

/// X86_HOST_* of this machine.
uint32_t x86_host_features(void);

/// One floating-point uop under the guest's MXCSR, whose exceptions are all masked. `code` is the uop's `imm`. `a`, `b` and
/// `c` are the first source, the second and the destination, each two lanes. Returns the exception flags, or -1: not done
/// here. A comparison leaves RFLAGS' bits in `r[0].x`, a conversion to a general register its value.
int x86_host_float(
    uint64_t code, uint32_t features, uint32_t mxcsr, x86_v128 r[_Nonnull 2], const x86_v128 a[_Nonnull 2],
    const x86_v128 b[_Nonnull 2], const x86_v128 c[_Nonnull 2]);

#if defined(__x86_64__)
enum { X86_HOST_ARITHMETIC = 1 };
#define X86_INLINE static inline __attribute__((always_inline))
#define X86_TWO(name, a, b) __asm__ volatile(name " %1, %0" : "+x"(a) : "x"(b))

/// The host's MXCSR. It goes through the state: a handler with a variable on the stack could not end in a tail call.
X86_INLINE uint32_t x86_host_mxcsr(struct x86_cpu *_Nonnull s) {
    __asm__ volatile("stmxcsr %0" : "=m"(s->host_mxcsr));
    return s->host_mxcsr;
}

// The order of the handlers' table. `type`: 0 PS, 1 PD, 2 SS, 3 SD.
enum { X86_ADD, X86_MUL, X86_SUB, X86_MIN, X86_DIV, X86_MAX, X86_SQRT };

/// One lane.
X86_INLINE x86_v128 x86_host_arithmetic(int operation, int type, x86_v128 a, x86_v128 b) {
#define X86_CASE(number, name) \
    case number * 4 + 0: X86_TWO(name "ps", a, b); break; \
    case number * 4 + 1: X86_TWO(name "pd", a, b); break; \
    case number * 4 + 2: X86_TWO(name "ss", a, b); break; \
    case number * 4 + 3: X86_TWO(name "sd", a, b); break;
    switch (operation * 4 + type) {
        X86_CASE(X86_ADD, "add")
        X86_CASE(X86_MUL, "mul")
        X86_CASE(X86_SUB, "sub")
        X86_CASE(X86_MIN, "min")
        X86_CASE(X86_DIV, "div")
        X86_CASE(X86_MAX, "max")
        X86_CASE(X86_SQRT, "sqrt")
    }
#undef X86_CASE
    return a;
}

/// COMISS (1) and UCOMISS (0) and their double forms: ZF, PF and CF at their places.
X86_INLINE uint64_t x86_host_compare(int isDouble, int signals, x86_v128 a, x86_v128 b) {
    _Bool z, p, c;
#define X86_COMPARE(name) \
    __asm__ volatile(name " %4, %3" : "=@ccz"(z), "=@ccp"(p), "=@ccc"(c) : "x"(a), "x"(b))
    if (isDouble) {
        if (signals) { X86_COMPARE("comisd"); } else { X86_COMPARE("ucomisd"); }
    } else {
        if (signals) { X86_COMPARE("comiss"); } else { X86_COMPARE("ucomiss"); }
    }
#undef X86_COMPARE
    return (uint64_t)z << 6 | (uint64_t)p << 2 | (uint64_t)c;
}

/// CVTSI2SS and CVTSI2SD into the lowest element.
X86_INLINE x86_v128 x86_host_from_integer(int isDouble, int wide, x86_v128 a, uint64_t v) {
    if (isDouble) {
        if (wide) {
            __asm__ volatile("cvtsi2sdq %1, %0" : "+x"(a) : "r"(v));
        } else {
            __asm__ volatile("cvtsi2sdl %1, %0" : "+x"(a) : "r"((uint32_t)v));
        }
    } else {
        if (wide) {
            __asm__ volatile("cvtsi2ssq %1, %0" : "+x"(a) : "r"(v));
        } else {
            __asm__ volatile("cvtsi2ssl %1, %0" : "+x"(a) : "r"((uint32_t)v));
        }
    }
    return a;
}

/// CVTSS2SI, CVTTSS2SI and their double forms.
X86_INLINE uint64_t x86_host_to_integer(int isDouble, int wide, int truncates, x86_v128 b) {
    uint64_t q = 0;
    uint32_t d = 0;
#define X86_CONVERT(name) \
    if (wide) { \
        __asm__ volatile(name "q %1, %0" : "=r"(q) : "x"(b)); \
    } else { \
        __asm__ volatile(name "l %1, %0" : "=r"(d) : "x"(b)); \
        q = d; \
    }
    if (isDouble) {
        if (truncates) { X86_CONVERT("cvttsd2si") } else { X86_CONVERT("cvtsd2si") }
    } else {
        if (truncates) { X86_CONVERT("cvttss2si") } else { X86_CONVERT("cvtss2si") }
    }
#undef X86_CONVERT
    return q;
}

/// CVTSS2SD (to double) and CVTSD2SS of the lowest element.
X86_INLINE x86_v128 x86_host_scalar_format(int fromDouble, x86_v128 a, x86_v128 b) {
    if (fromDouble) {
        X86_TWO("cvtsd2ss", a, b);
    } else {
        X86_TWO("cvtss2sd", a, b);
    }
    return a;
}

X86_INLINE x86_v128 x86_host_pshufb(x86_v128 a, x86_v128 b) {
    __asm__("pshufb %1, %0" : "+x"(a) : "x"(b));
    return a;
}

// Rounds of AES and SHA, and carry-less products: for hosts with X86_HOST_AES, X86_HOST_SHA and X86_HOST_PCLMULQDQ.
enum { X86_AESENC, X86_AESENCLAST, X86_AESDEC, X86_AESDECLAST, X86_AESIMC };
X86_INLINE x86_v128 x86_host_aes(int operation, x86_v128 a, x86_v128 b) {
    switch (operation) {
        case X86_AESENC: __asm__("aesenc %1, %0" : "+x"(a) : "x"(b)); break;
        case X86_AESENCLAST: __asm__("aesenclast %1, %0" : "+x"(a) : "x"(b)); break;
        case X86_AESDEC: __asm__("aesdec %1, %0" : "+x"(a) : "x"(b)); break;
        case X86_AESDECLAST: __asm__("aesdeclast %1, %0" : "+x"(a) : "x"(b)); break;
        default: __asm__("aesimc %1, %0" : "=x"(a) : "x"(b)); break;
    }
    return a;
}

X86_INLINE x86_v128 x86_host_sha256_rounds(x86_v128 cdgh, x86_v128 abef, x86_v128 words) {
    register x86_v128 w __asm__("xmm0") = words;
    __asm__("sha256rnds2 %1, %0" : "+x"(cdgh) : "x"(abef), "x"(w));
    return cdgh;
}

enum { X86_SHA1NEXTE, X86_SHA1MSG1, X86_SHA1MSG2, X86_SHA256MSG1, X86_SHA256MSG2 };
X86_INLINE x86_v128 x86_host_sha_message(int operation, x86_v128 a, x86_v128 b) {
    switch (operation) {
        case X86_SHA1NEXTE: __asm__("sha1nexte %1, %0" : "+x"(a) : "x"(b)); break;
        case X86_SHA1MSG1: __asm__("sha1msg1 %1, %0" : "+x"(a) : "x"(b)); break;
        case X86_SHA1MSG2: __asm__("sha1msg2 %1, %0" : "+x"(a) : "x"(b)); break;
        case X86_SHA256MSG1: __asm__("sha256msg1 %1, %0" : "+x"(a) : "x"(b)); break;
        default: __asm__("sha256msg2 %1, %0" : "+x"(a) : "x"(b)); break;
    }
    return a;
}

X86_INLINE x86_v128 x86_host_sha1_rounds(int function, x86_v128 a, x86_v128 b) {
    switch (function) {
        case 0: __asm__("sha1rnds4 $0, %1, %0" : "+x"(a) : "x"(b)); break;
        case 1: __asm__("sha1rnds4 $1, %1, %0" : "+x"(a) : "x"(b)); break;
        case 2: __asm__("sha1rnds4 $2, %1, %0" : "+x"(a) : "x"(b)); break;
        default: __asm__("sha1rnds4 $3, %1, %0" : "+x"(a) : "x"(b)); break;
    }
    return a;
}

X86_INLINE x86_v128 x86_host_pclmulqdq(int halves, x86_v128 a, x86_v128 b) {
    switch (halves & 0x11) {
        case 0: __asm__("pclmulqdq $0, %1, %0" : "+x"(a) : "x"(b)); break;
        case 1: __asm__("pclmulqdq $1, %1, %0" : "+x"(a) : "x"(b)); break;
        case 0x10: __asm__("pclmulqdq $16, %1, %0" : "+x"(a) : "x"(b)); break;
        default: __asm__("pclmulqdq $17, %1, %0" : "+x"(a) : "x"(b)); break;
    }
    return a;
}

#undef X86_TWO
#undef X86_INLINE
#else
enum { X86_HOST_ARITHMETIC = 0 };
#endif
