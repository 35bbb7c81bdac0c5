// Every Swift structure that crosses the seam against the kernel's layout. The numbers are CKVM's table: written down
// from the kernel's documentation of the ABI and compared there, at compile time, with the installed headers.

import CKVM
import KVMABI
import Testing

/// One Swift structure and where its fields are.
private struct Layout: CustomTestStringConvertible, Sendable {
    var kernelName: String
    var byteCount: Int
    var stride: Int
    /// By the kernel's field name; nil = not a stored property.
    var offsets: [String: Int?]

    init<S: KernelStructure>(_ name: String, _ type: S.Type, _ fields: [(String, PartialKeyPath<S>)]) {
        kernelName = name
        byteCount = MemoryLayout<S>.size
        stride = MemoryLayout<S>.stride
        offsets = Dictionary(uniqueKeysWithValues: fields.map { ($0.0, MemoryLayout<S>.offset(of: $0.1)) })
    }

    var testDescription: String { kernelName }
}

private let segmentsAndControls: [String] = [
    "cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt", "gdt", "idt", "cr0", "cr2", "cr3", "cr4", "cr8", "efer",
    "apic_base",
]

private let layouts: [Layout] = [
    // Memory.
    Layout(
        "kvm_userspace_memory_region", KVMUserspaceMemoryRegion.self,
        [
            ("slot", \.slot), ("flags", \.flags), ("guest_phys_addr", \.guestPhysicalAddress),
            ("memory_size", \.memoryByteCount), ("userspace_addr", \.userspaceAddress),
        ]),
    Layout(
        "kvm_userspace_memory_region2", KVMUserspaceMemoryRegion2.self,
        [
            ("slot", \.slot), ("flags", \.flags), ("guest_phys_addr", \.guestPhysicalAddress),
            ("memory_size", \.memoryByteCount), ("userspace_addr", \.userspaceAddress),
            ("guest_memfd_offset", \.guestMemfdOffset), ("guest_memfd", \.guestMemfd),
        ]),
    Layout("kvm_create_guest_memfd", KVMCreateGuestMemfd.self, [("size", \.byteCount), ("flags", \.flags)]),
    Layout(
        "kvm_memory_attributes", KVMMemoryAttributes.self,
        [("address", \.address), ("size", \.byteCount), ("attributes", \.attributes), ("flags", \.flags)]),
    Layout(
        "kvm_pre_fault_memory", KVMPreFaultMemory.self, [("gpa", \.gpa), ("size", \.byteCount), ("flags", \.flags)]),
    Layout(
        "kvm_clear_dirty_log", KVMClearDirtyLog.self,
        [
            ("slot", \.slot), ("num_pages", \.pageCount), ("first_page", \.firstPage),
            ("dirty_bitmap", \.bitmapAddress),
        ]),
    Layout(
        "kvm_coalesced_mmio_zone", KVMCoalescedZone.self,
        [("addr", \.address), ("size", \.byteCount), ("pio", \.isPort)]),
    Layout("kvm_dirty_log", KVMDirtyLog.self, [("slot", \.slot), ("dirty_bitmap", \.bitmapAddress)]),
    Layout("kvm_enc_region", KVMEncryptedRegion.self, [("addr", \.address), ("size", \.byteCount)]),

    // Registers.
    Layout(
        "kvm_regs", KVMRegisters.self,
        [
            ("rax", \.rax), ("rbx", \.rbx), ("rcx", \.rcx), ("rdx", \.rdx), ("rsi", \.rsi), ("rdi", \.rdi),
            ("rsp", \.rsp), ("rbp", \.rbp), ("r8", \.r8), ("r9", \.r9), ("r10", \.r10), ("r11", \.r11), ("r12", \.r12),
            ("r13", \.r13), ("r14", \.r14), ("r15", \.r15), ("rip", \.rip), ("rflags", \.rflags),
        ]),
    Layout(
        "kvm_segment", KVMSegment.self,
        [
            ("base", \.base), ("limit", \.limit), ("selector", \.selector), ("type", \.type), ("present", \.present),
            ("dpl", \.dpl), ("db", \.db), ("s", \.s), ("l", \.l), ("g", \.g), ("avl", \.avl), ("unusable", \.unusable),
        ]),
    Layout("kvm_dtable", KVMDescriptorTable.self, [("base", \.base), ("limit", \.limit)]),
    Layout(
        "kvm_sregs", KVMSpecialRegisters.self,
        Array(
            zip(
                segmentsAndControls + ["interrupt_bitmap"],
                [
                    \.cs, \.ds, \.es, \.fs, \.gs, \.ss, \.tr, \.ldt, \.gdt, \.idt, \.cr0, \.cr2, \.cr3, \.cr4, \.cr8,
                    \.efer, \.apicBase, \.interruptBitmap,
                ] as [PartialKeyPath<KVMSpecialRegisters>]))),
    Layout(
        "kvm_sregs2", KVMSpecialRegisters2.self,
        Array(
            zip(
                segmentsAndControls + ["flags", "pdptrs"],
                [
                    \.cs, \.ds, \.es, \.fs, \.gs, \.ss, \.tr, \.ldt, \.gdt, \.idt, \.cr0, \.cr2, \.cr3, \.cr4, \.cr8,
                    \.efer, \.apicBase, \.flags, \.pdptrs,
                ] as [PartialKeyPath<KVMSpecialRegisters2>]))),
    Layout(
        "kvm_fpu", KVMFPU.self,
        [
            ("fpr", \.fpr), ("fcw", \.fcw), ("fsw", \.fsw), ("ftwx", \.ftwx), ("last_opcode", \.lastOpcode),
            ("last_ip", \.lastIP), ("last_dp", \.lastDP), ("xmm", \.xmm), ("mxcsr", \.mxcsr),
        ]),
    Layout("kvm_xsave", KVMXSave.self, [("region", \.region)]),
    Layout("kvm_xcr", KVMXCR.self, [("xcr", \.xcr), ("value", \.value)]),
    Layout("kvm_xcrs", KVMXCRs.self, [("nr_xcrs", \.count), ("flags", \.flags), ("xcrs", \.xcrs)]),
    Layout(
        "kvm_debugregs", KVMDebugRegisters.self,
        [("db", \.db), ("dr6", \.dr6), ("dr7", \.dr7), ("flags", \.flags)]),
    Layout(
        "kvm_guest_debug", KVMGuestDebug.self, [("control", \.control), ("arch.debugreg", \.debugRegisters)]),
    Layout(
        "kvm_translation", KVMTranslation.self,
        [
            ("linear_address", \.linearAddress), ("physical_address", \.physicalAddress), ("valid", \.valid),
            ("writeable", \.writeable), ("usermode", \.usermode),
        ]),
    Layout("kvm_one_reg", KVMOneRegister.self, [("id", \.id), ("addr", \.address)]),
    Layout(
        "kvm_cpuid_entry2", KVMCPUIDEntry.self,
        [
            ("function", \.function), ("index", \.index), ("flags", \.flags), ("eax", \.eax), ("ebx", \.ebx),
            ("ecx", \.ecx), ("edx", \.edx),
        ]),
    Layout("kvm_msr_entry", KVMMSREntry.self, [("index", \.index), ("data", \.data)]),

    // Interrupts, clock, capabilities.
    Layout("kvm_lapic_state", KVMLAPICState.self, [("regs", \.registers)]),
    Layout("kvm_mp_state", KVMMPState.self, [("mp_state", \.state)]),
    Layout(
        "kvm_vcpu_events", KVMVCPUEvents.self,
        [
            ("exception.injected", \.exceptionInjected), ("exception.nr", \.exceptionNumber),
            ("exception.has_error_code", \.exceptionHasErrorCode), ("exception.pending", \.exceptionPending),
            ("exception.error_code", \.exceptionErrorCode), ("interrupt.injected", \.interruptInjected),
            ("interrupt.nr", \.interruptNumber), ("interrupt.soft", \.interruptSoft),
            ("interrupt.shadow", \.interruptShadow), ("nmi.injected", \.nmiInjected), ("nmi.pending", \.nmiPending),
            ("nmi.masked", \.nmiMasked), ("sipi_vector", \.sipiVector), ("flags", \.flags), ("smi.smm", \.smm),
            ("smi.pending", \.smiPending), ("smi.smm_inside_nmi", \.smmInsideNMI), ("smi.latched_init", \.latchedInit),
            ("triple_fault.pending", \.tripleFaultPending), ("exception_has_payload", \.exceptionHasPayload),
            ("exception_payload", \.exceptionPayload),
        ]),
    Layout(
        "kvm_enable_cap", KVMEnableCapability.self,
        [("cap", \.capability), ("flags", \.flags), ("args", \.arguments)]),
    Layout(
        "kvm_clock_data", KVMClockData.self,
        [("clock", \.clock), ("flags", \.flags), ("realtime", \.realtime), ("host_tsc", \.hostTSC)]),
    Layout("kvm_irq_level", KVMIRQLevel.self, [("irq", \.irq), ("level", \.level)]),
    Layout("kvm_irqchip", KVMIRQChip.self, [("chip_id", \.chipID), ("chip", \.state)]),
    Layout("kvm_pit_config", KVMPITConfig.self, [("flags", \.flags)]),
    Layout(
        "kvm_msi", KVMMSI.self,
        [
            ("address_lo", \.addressLow), ("address_hi", \.addressHigh), ("data", \.data), ("flags", \.flags),
            ("devid", \.deviceID),
        ]),
    Layout("kvm_interrupt", KVMInterrupt.self, [("irq", \.irq)]),
    Layout(
        "kvm_irqfd", KVMIRQFD.self,
        [("fd", \.fd), ("gsi", \.gsi), ("flags", \.flags), ("resamplefd", \.resampleFD)]),
    Layout(
        "kvm_ioeventfd", KVMIOEventFD.self,
        [
            ("datamatch", \.dataMatch), ("addr", \.address), ("len", \.byteCount), ("fd", \.fd), ("flags", \.flags),
        ]),
    Layout(
        "kvm_device_attr", KVMDeviceAttribute.self,
        [("flags", \.flags), ("group", \.group), ("attr", \.attribute), ("addr", \.address)]),

    // SEV.
    Layout(
        "kvm_sev_cmd", KVMSEVCommand.self,
        [("id", \.id), ("data", \.data), ("error", \.error), ("sev_fd", \.sevHandle)]),
    Layout(
        "kvm_sev_init", KVMSEVInit.self,
        [("vmsa_features", \.vmsaFeatures), ("flags", \.flags), ("ghcb_version", \.ghcbVersion)]),
    Layout(
        "kvm_sev_snp_launch_start", KVMSNPLaunchStart.self,
        [("policy", \.policy), ("gosvw", \.gosvw), ("flags", \.flags)]),
    Layout(
        "kvm_sev_snp_launch_update", KVMSNPLaunchUpdate.self,
        [
            ("gfn_start", \.gfnStart), ("uaddr", \.userAddress), ("len", \.byteCount), ("type", \.type),
            ("flags", \.flags),
        ]),
    Layout(
        "kvm_sev_snp_launch_finish", KVMSNPLaunchFinish.self,
        [
            ("id_block_uaddr", \.idBlockAddress), ("id_auth_uaddr", \.idAuthAddress), ("id_block_en", \.idBlockEnabled),
            ("auth_key_en", \.authorKeyEnabled), ("vcek_disabled", \.vcekDisabled), ("host_data", \.hostData),
            ("flags", \.flags),
        ]),
    Layout(
        "sev_issue_cmd", SEVIssueCommand.self,
        [("cmd", \.command), ("data", \.dataLow), ("error", \.error)]),
    Layout(
        "sev_user_data_status", SEVUserStatus.self,
        [
            ("api_major", \.apiMajor), ("api_minor", \.apiMinor), ("state", \.state), ("flags", \.flagBytes),
            ("build", \.build), ("guest_count", \.guestCount),
        ]),
    Layout(
        "sev_user_data_snp_status", SNPUserStatus.self,
        [
            ("api_major", \.apiMajor), ("api_minor", \.apiMinor), ("state", \.state), ("build_id", \.buildID),
            ("guest_count", \.guestCount), ("current_tcb_version", \.currentTCB),
            ("reported_tcb_version", \.reportedTCB),
        ]),
    Layout("sev_user_data_snp_config", SNPUserConfig.self, [("reported_tcb", \.reportedTCB)]),

    // SEV and SEV-ES guests.
    Layout(
        "kvm_sev_launch_start", KVMSEVLaunchStart.self,
        [
            ("handle", \.handle), ("policy", \.policy), ("dh_uaddr", \.certificateAddress),
            ("dh_len", \.certificateByteCount), ("session_uaddr", \.sessionAddress),
            ("session_len", \.sessionByteCount),
        ]),
    Layout(
        "kvm_sev_launch_update_data", KVMSEVLaunchUpdateData.self, [("uaddr", \.userAddress), ("len", \.byteCount)]),
    Layout(
        "kvm_sev_launch_secret", KVMSEVLaunchSecret.self,
        [
            ("hdr_uaddr", \.headerAddress), ("hdr_len", \.headerByteCount), ("guest_uaddr", \.guestAddress),
            ("guest_len", \.guestByteCount), ("trans_uaddr", \.transportAddress), ("trans_len", \.transportByteCount),
        ]),
    Layout(
        "kvm_sev_send_update_data", KVMSEVMigrationPacket.self,
        [
            ("hdr_uaddr", \.headerAddress), ("hdr_len", \.headerByteCount), ("guest_uaddr", \.guestAddress),
            ("guest_len", \.guestByteCount), ("trans_uaddr", \.transportAddress), ("trans_len", \.transportByteCount),
        ]),
    Layout(
        "kvm_sev_receive_update_data", KVMSEVMigrationPacket.self,
        [
            ("hdr_uaddr", \.headerAddress), ("hdr_len", \.headerByteCount), ("guest_uaddr", \.guestAddress),
            ("guest_len", \.guestByteCount), ("trans_uaddr", \.transportAddress), ("trans_len", \.transportByteCount),
        ]),
    Layout("kvm_sev_launch_measure", KVMSEVLaunchMeasure.self, [("uaddr", \.userAddress), ("len", \.byteCount)]),
    Layout(
        "kvm_sev_guest_status", KVMSEVGuestStatus.self,
        [("handle", \.handle), ("policy", \.policy), ("state", \.state)]),
    Layout(
        "kvm_sev_dbg", KVMSEVDebug.self,
        [("src_uaddr", \.sourceAddress), ("dst_uaddr", \.destinationAddress), ("len", \.byteCount)]),
    Layout(
        "kvm_sev_attestation_report", KVMSEVAttestationReport.self,
        [("mnonce", \.nonce), ("uaddr", \.userAddress), ("len", \.byteCount)]),
    Layout(
        "kvm_sev_send_start", KVMSEVSendStart.self,
        [
            ("policy", \.policy), ("pdh_cert_uaddr", \.certificateAddress), ("pdh_cert_len", \.certificateByteCount),
            ("plat_certs_uaddr", \.platformCertificatesAddress),
            ("plat_certs_len", \.platformCertificatesByteCount), ("amd_certs_uaddr", \.amdCertificatesAddress),
            ("amd_certs_len", \.amdCertificatesByteCount), ("session_uaddr", \.sessionAddress),
            ("session_len", \.sessionByteCount),
        ]),
    Layout(
        "kvm_sev_receive_start", KVMSEVReceiveStart.self,
        [
            ("handle", \.handle), ("policy", \.policy), ("pdh_uaddr", \.certificateAddress),
            ("pdh_len", \.certificateByteCount), ("session_uaddr", \.sessionAddress),
            ("session_len", \.sessionByteCount),
        ]),
    Layout("sev_user_data_pek_csr", SEVUserPEKCSR.self, [("address", \.address), ("length", \.byteCount)]),
    Layout(
        "sev_user_data_pek_cert_import", SEVUserPEKCertificateImport.self,
        [
            ("pek_cert_address", \.pekAddress), ("pek_cert_len", \.pekByteCount), ("oca_cert_address", \.ocaAddress),
            ("oca_cert_len", \.ocaByteCount),
        ]),
    Layout(
        "sev_user_data_pdh_cert_export", SEVUserPDHExport.self,
        [
            ("pdh_cert_address", \.certificateAddress), ("pdh_cert_len", \.certificateByteCount),
            ("cert_chain_address", \.chainAddressLow), ("cert_chain_len", \.chainByteCount),
        ]),
    Layout("sev_user_data_get_id", SEVUserGetID.self, [("socket1", \.socket1), ("socket2", \.socket2)]),
    Layout("sev_user_data_get_id2", SEVUserGetID2.self, [("address", \.address), ("length", \.byteCount)]),
    Layout(
        "sev_user_data_snp_vlek_load", SNPUserVLEKLoad.self,
        [
            ("len", \.byteCount), ("vlek_wrapped_version", \.version), ("rsvd", \.rsvd),
            ("vlek_wrapped_address", \.address),
        ]),
]

/// CKVM's table: structure → field → offset, with the length under "".
private let kernelLayouts: [String: [String: Int]] = {
    var result: [String: [String: Int]] = [:]
    for index in 0..<ckvm_field_count() {
        let entry = ckvm_field_at(index)
        result[String(cString: entry.structure), default: [:]][String(cString: entry.field)] = Int(entry.value)
    }
    return result
}()

@Suite struct LayoutTests {
    @Test(arguments: layouts)
    private func `has the kernel's length and offsets`(_ layout: Layout) throws {
        let kernel = try #require(kernelLayouts[layout.kernelName])
        #expect(layout.byteCount == kernel[""])
        #expect(layout.stride == layout.byteCount, "implicit padding at the end")
        var remaining = kernel
        remaining[""] = nil
        for (field, offset) in layout.offsets {
            #expect(offset == remaining.removeValue(forKey: field), "\(layout.kernelName).\(field)")
        }
        // rsvd1 of the config is only named by number in the table.
        #expect(remaining.isEmpty, "fields without a Swift counterpart")
    }

    /// Views and lists have no Swift structure of their own; their own tests check them.
    @Test func `covers every structure of the table`() {
        let covered = Set(layouts.map(\.kernelName)).union(["kvm_run", "kvm_cpuid2", "kvm_msrs"])
            // The guest's own device: GuestAgentTests.
            .union(["snp_report_req", "snp_report_resp", "snp_derived_key_req", "snp_derived_key_resp"])
            .union(["snp_ext_report_req", "snp_guest_request_ioctl"])
        #expect(Set(kernelLayouts.keys) == covered)
    }

    @Test func `packed addresses sit between their neighbours`() {
        var command = SEVIssueCommand(.snpPlatformStatus, data: 0x1122_3344_5566_7788)
        command.error = 0xaabb_ccdd
        #expect(
            command.kernelBytes == [
                0x09, 0, 0, 0,  // cmd
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // data
                0xdd, 0xcc, 0xbb, 0xaa,  // error
            ])
        #expect(command.data == 0x1122_3344_5566_7788)

        var status = SEVUserStatus()
        status.flags = 0x0403_0201
        status.build = 9
        status.guestCount = 7
        #expect(status.kernelBytes == [0, 0, 0, 1, 2, 3, 4, 9, 7, 0, 0, 0])
        #expect(status.flags == 0x0403_0201)

        #expect(
            SEVUserGetID2(address: 0x1234_5678_9abc_def0, byteCount: 64).kernelBytes
                == [0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 64, 0, 0, 0])
        var chain = SEVUserPDHExport()
        chain.certificateByteCount = 2084
        chain.chainAddress = 0x1122_3344_5566_7788
        chain.chainByteCount = 6252
        #expect(
            chain.kernelBytes == [
                0, 0, 0, 0, 0, 0, 0, 0,  // pdh_cert_address
                0x24, 0x08, 0, 0,  // pdh_cert_len
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // cert_chain_address
                0x6c, 0x18, 0, 0,  // cert_chain_len
            ])
        #expect(chain.chainAddress == 0x1122_3344_5566_7788)
    }

    @Test func `lists are a header and entries`() throws {
        let leaf = KVMCPUIDEntry(function: 7, index: 1, eax: 2, ebx: 3, ecx: 4, edx: 5)
        let bytes = KVMCPUIDList.encode([leaf])
        #expect(bytes.count == 48)
        #expect(
            bytes.prefix(32) == [
                1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0,
            ])
        #expect(KVMCPUIDList.decode(bytes).map(\.ebx) == [3])
        #expect(KVMCPUIDList.room(for: 3).count == 128)

        let msrs = KVMMSRList.encode([KVMMSREntry(index: 0xc000_0080, data: 0x500)])
        #expect(msrs == [1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0xc0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0])
        #expect(KVMMSRList.decode(msrs) == [KVMMSREntry(index: 0xc000_0080, data: 0x500)])
    }

    @Test func `a list that announces more than it holds is cut, not overrun`() {
        #expect(
            KVMCPUIDList.decode([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 79)).count == 1)
        #expect(KVMCPUIDList.decode([1, 0]).isEmpty)
        #expect(KVMMSRIndexList.decode([9, 0, 0, 0, 1, 2, 3, 4, 5]) == [0x0403_0201])
        #expect(KVMMSRIndexList.decode([]).isEmpty)
    }

    @Test func `segment attributes survive the way through KVM's form`() {
        for attributes: UInt16 in [0x9a, 0x92, 0x82, 0x83, 0xa9b, 0xc93, 0x8b, 0xfff, 0x80] {
            let segment = KVMSegment(selector: 8, attributes: attributes, limit: 0xffff_ffff, base: 0)
            #expect(segment.attributes == attributes)
            #expect(segment.unusable == 0)
        }
        #expect(KVMSegment(selector: 0, attributes: 0, limit: 0, base: 0).unusable == 1)
    }
}
