// INIT2, 6.10.
CKVM_SIZE(kvm_sev_init, 48)
CKVM_FIELD(kvm_sev_init, vmsa_features, 0)
CKVM_FIELD(kvm_sev_init, flags, 8)
CKVM_FIELD(kvm_sev_init, ghcb_version, 12)
CKVM_CONSTANT(KVM_SEV_INIT2, 22)
CKVM_CONSTANT(KVM_X86_GRP_SEV, 1)
CKVM_CONSTANT(KVM_X86_SEV_VMSA_FEATURES, 0)
