// Loading a VLEK, 6.13.
CKVM_SIZE(sev_user_data_snp_vlek_load, 16)
CKVM_FIELD(sev_user_data_snp_vlek_load, len, 0)
CKVM_FIELD(sev_user_data_snp_vlek_load, vlek_wrapped_version, 4)
CKVM_FIELD(sev_user_data_snp_vlek_load, rsvd, 5)
CKVM_FIELD(sev_user_data_snp_vlek_load, vlek_wrapped_address, 8)
CKVM_CONSTANT(SNP_VLEK_LOAD, 12)
