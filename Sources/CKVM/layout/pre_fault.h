// KVM_PRE_FAULT_MEMORY, 6.11.
CKVM_SIZE(kvm_pre_fault_memory, 64)
CKVM_FIELD(kvm_pre_fault_memory, gpa, 0)
CKVM_FIELD(kvm_pre_fault_memory, size, 8)
CKVM_FIELD(kvm_pre_fault_memory, flags, 16)
CKVM_CONSTANT(KVM_PRE_FAULT_MEMORY, 0xc040aed5)
CKVM_CONSTANT(KVM_CAP_PRE_FAULT_MEMORY, 236)
