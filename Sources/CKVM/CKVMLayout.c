// The layouts and numbers this project relies on, written down once in layout/*.h and used twice: compared with the
// installed kernel headers at compile time, as far as those know them, and handed to the tests as a table.
//
// The tables do not come from the headers: older distributions have headers without SNP, and the project must build
// there.

#include "CKVM.h"

#include <asm/svm.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/psp-sev.h>
#include <linux/version.h>
#include <stddef.h>

#if __has_include(<linux/sev-guest.h>)
#include <linux/sev-guest.h>
#endif

#define CKVM_KERNEL_6_9 (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0))
#define CKVM_KERNEL_6_13 (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0))

// First use: against the headers. The secure processor's structures have kernel-style tags too, so one form fits all.
#define CKVM_SIZE(STRUCTURE, SIZE) _Static_assert(sizeof(struct STRUCTURE) == (SIZE), #STRUCTURE);
#define CKVM_FIELD(STRUCTURE, FIELD, OFFSET) \
    _Static_assert(offsetof(struct STRUCTURE, FIELD) == (OFFSET), #STRUCTURE "." #FIELD);
#define CKVM_CONSTANT(NAME, VALUE) _Static_assert((unsigned long long)(NAME) == (VALUE##ull), #NAME);

#include "layout/base.h"
#include "layout/paravirtual.h"
#include "layout/psp.h"
#include "layout/sev.h"
#ifdef KVM_CREATE_GUEST_MEMFD
#include "layout/guest_memfd.h"
#endif
#ifdef KVM_X86_SEV_VMSA_FEATURES
#include "layout/sev_init2.h"
#endif
#ifdef KVM_X86_SNP_VM
#include "layout/snp.h"
#endif
#ifdef KVM_PRE_FAULT_MEMORY
#include "layout/pre_fault.h"
#endif
#ifdef KVM_EXIT_SNP_REQ_CERTS
#include "layout/certificates.h"
#endif
#ifdef SNP_GET_EXT_REPORT
#include "layout/guest_device.h"
#endif
#ifdef SVM_VMGEXIT_HV_FEATURES
#include "layout/guest_events.h"
#endif
#ifdef SVM_VMGEXIT_SNP_RUN_VMPL
#include "layout/run_vmpl.h"
#endif
#if CKVM_KERNEL_6_9
#include "layout/psp_snp.h"
#endif
#if CKVM_KERNEL_6_13
#include "layout/psp_vlek.h"
#endif

#undef CKVM_SIZE
#undef CKVM_FIELD
#undef CKVM_CONSTANT

// Second use: a table of structures and fields, whatever the headers know.
#define CKVM_SIZE(STRUCTURE, SIZE) {#STRUCTURE, "", SIZE},
#define CKVM_FIELD(STRUCTURE, FIELD, OFFSET) {#STRUCTURE, #FIELD, OFFSET},
#define CKVM_CONSTANT(NAME, VALUE)

static const ckvm_field fields[] = {
#include "layout/all.h"
};

#undef CKVM_SIZE
#undef CKVM_FIELD
#undef CKVM_CONSTANT

// Third use: a table of constants.
#define CKVM_SIZE(STRUCTURE, SIZE)
#define CKVM_FIELD(STRUCTURE, FIELD, OFFSET)
#define CKVM_CONSTANT(NAME, VALUE) {#NAME, VALUE},

static const ckvm_constant constants[] = {
#include "layout/all.h"
};

uint32_t ckvm_field_count(void) { return sizeof fields / sizeof fields[0]; }

ckvm_field ckvm_field_at(uint32_t index) { return fields[index]; }

uint32_t ckvm_constant_count(void) { return sizeof constants / sizeof constants[0]; }

ckvm_constant ckvm_constant_at(uint32_t index) { return constants[index]; }
