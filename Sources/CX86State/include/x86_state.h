// The state of the software processor, as C types: Swift function-pointer types (`@convention(c)`) can name only C
// types, and a C structure has the flat, fixed layout that the handlers' byte offsets rely on.
//
//   x86_uop    one predecoded operation, 32 bytes; a guest instruction is one or a few of them
//   x86_cpu    the registers, hot fields first; register operands of a uop are byte offsets into it
//   x86_tlb_*  the software TLB: a hit is a compare and an add
#pragma once
#include <stddef.h>
#include <stdint.h>

struct x86_cpu;
struct x86_uop;

/// Executes one uop and continues with the next by a tail call; returning leaves the processor's run loop iteration.
typedef void (*_Nonnull x86_handler)(struct x86_cpu *_Nonnull, const struct x86_uop *_Nonnull);

struct x86_uop {
    x86_handler fn;
    uint16_t dst, src;      // byte offsets into x86_cpu, or what the handler says
    uint16_t base, index;   // address operands: byte offsets into x86_cpu (the zero slot stands for "none")
    uint8_t scale;          // index shift
    uint8_t len;            // length of the guest instruction in bytes
    uint16_t off;           // guest instruction's distance from the block's first byte
    int32_t disp;
    uint64_t imm;
};
_Static_assert(sizeof(struct x86_uop) == 32, "uop size");

struct x86_tlb_entry {
    uint64_t read, write;        // linear page address if allowed, else 1 (never equal to a page address)
    uint64_t global;             // 1: stays when CR3 is written; instruction fetches have a cache of their own
    uint64_t addend;             // host address minus linear address
};

/// A page of instructions: where it is, for fetches at one privilege.
struct x86_fetch_entry {
    uint64_t tag;                // linear page address | 2 | (CPL 3 ? 1 : 0), or 0
    uint64_t page;               // host address
};

struct x86_jump_entry {
    uint64_t key;
    const struct x86_uop *_Nullable target;
};

enum { X86_TLB_SIZE = 1024, X86_JUMP_SIZE = 4096, X86_FETCH_SIZE = 256 };

// Why a handler returned to the run loop.
enum {
    X86_LEAVE_LOOKUP = 0,      // continue at rip; link from `link` if not null
    X86_LEAVE_BUDGET,          // time slice over
    X86_LEAVE_EXCEPTION,       // deliver exception `vector`
    X86_LEAVE_EXIT,            // a #VMEXIT was prepared
    X86_LEAVE_REDO,            // run the uop `resume_uop`
    X86_LEAVE_CHECK,           // interrupt window or TF may have opened: look, then continue at rip
    X86_LEAVE_ALONE,           // repeat from rip while no other processor of the machine runs
};

struct x86_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attributes;
};

struct x86_cpu {
    uint64_t gpr[16];
    uint64_t zero;             // always 0: "no base", "no index"
    uint64_t tmp[4];           // scratch between the uops of one instruction
    uint64_t fs_base, gs_base; // read as address operands
    // Arithmetic flags, lazily: ZF = (fz == 0); SF = fs bit 63; PF = even parity of fs bits 7:0;
    // CF = fc bit 63; OF = fc bit 63 xor bit 62; AF = fc bit 3.
    uint64_t fz, fs, fc;
    uint64_t rip;              // first byte of the running block; exact outside blocks
    int64_t budget;            // instructions left in this slice
    struct x86_tlb_entry *_Nonnull tlb;
    struct x86_jump_entry *_Nonnull jumps;
    uint64_t jump_key;         // mixed into jump-cache keys: generation and privilege
    uint32_t generation;       // of the TLB: cross-page links are valid only in the generation that made them
    uint32_t leave;            // X86_LEAVE_*
    uint64_t system_flags;     // RFLAGS without the arithmetic bits
    uint64_t window;           // non-zero: stop when interrupts become deliverable
    struct x86_uop *_Nullable link;

    // Exception to deliver.
    uint32_t vector, error_code;
    uint32_t has_error_code;
    uint32_t shadow;           // interrupt shadow: 1 = the next instruction is protected
    uint64_t fault_address;

    // Slow memory accesses: data bounce here while the uop is repeated from `scratch`.
    _Alignas(16) uint8_t bounce[64];
    struct x86_uop scratch[16];
    const struct x86_uop *_Nullable resume;      // where a bounced instruction's successor is
    const struct x86_uop *_Nullable resume_uop;  // with X86_LEAVE_REDO
    uint64_t bounce_address;
    uint32_t bounce_size, bounce_kind;
    uint32_t bounce_index;     // TLB slot that was borrowed
    uint32_t bounce_end;       // index of the uop in `scratch` that leads back
    struct x86_tlb_entry bounce_saved;

    _Alignas(16) uint64_t xmm[32];
    uint64_t xtmp[4];
    uint32_t mxcsr;
    uint16_t fcw, fsw;
    uint64_t st_mantissa[8];   // physical registers
    uint16_t st_exponent[8];
    uint8_t ftw;               // abridged, physical order
    uint8_t fpu_pad[1];
    uint16_t fop;
    uint64_t fip, fdp;

    struct x86_segment es, cs, ss, ds, fs_seg, gs_seg, ldtr, tr;   // fs/gs bases live above
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint32_t cpl;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0;
    uint64_t dr[8];
    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip, pat, xss, ghcb_msr, sev_status;
    uint32_t pkru;
    // What the running code segment means. Outside 64-bit mode `rip` is a linear address all the same: EIP is rip minus
    // `code_base`, and addresses wrap at 4 GiB.
    uint32_t legacy;           // 0 in 64-bit code, else 1
    uint64_t code_base;        // 0 in 64-bit code
    uint64_t rip_mask;         // all ones in 64-bit code, else 0xffffffff
    uint32_t context;          // which decoded blocks belong to this mode; 0 in 64-bit code
    uint32_t host;             // X86_HOST_*: what the host's own instructions may do for this processor
    uint32_t host_mxcsr;       // where handlers put the host's MXCSR to look at it
    uint32_t shared;           // other processors may run at the same time
    struct x86_fetch_entry *_Nonnull fetches;
    void *_Nullable owner;     // the Swift object, unretained
    uint32_t alone;            // ... but do not now
    uint32_t requested;        // somebody wants the run loop to look around (atomic)

    // The upper halves of YMM0…15, and of xtmp: each as far behind them as the first of these is behind the first of those.
    _Alignas(16) uint64_t ymmh[32];
    uint64_t ytmp[4];
};

// A number of the compiler's own: one that is computed when first asked for would cost each handler a look.
enum { X86_UPPER_HALF_DISTANCE = offsetof(struct x86_cpu, ymmh) - offsetof(struct x86_cpu, xmm) };
