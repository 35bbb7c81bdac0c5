// The request words: written out in KVMABI, recomputed here from direction, length, type and number, and compared with
// CKVM's table, which the installed headers have confirmed.

import CKVM
import KVMABI
import Testing

/// The two direction bits of a request word.
private enum Direction: UInt32 {
    case none = 0
    case write = 1
    case read = 2
    case readWrite = 3
}

private let table: [(name: String, request: IoctlRequest, direction: Direction, byteCount: UInt32, number: UInt32)] = [
    ("KVM_GET_API_VERSION", .getAPIVersion, .none, 0, 0x00),
    ("KVM_CREATE_VM", .createVM, .none, 0, 0x01),
    ("KVM_CHECK_EXTENSION", .checkExtension, .none, 0, 0x03),
    ("KVM_GET_VCPU_MMAP_SIZE", .getVCPUMmapSize, .none, 0, 0x04),
    ("KVM_GET_SUPPORTED_CPUID", .getSupportedCPUID, .readWrite, 8, 0x05),
    ("KVM_GET_MSR_INDEX_LIST", .getMSRIndexList, .readWrite, 4, 0x02),
    ("KVM_GET_MSR_FEATURE_INDEX_LIST", .getMSRFeatureIndexList, .readWrite, 4, 0x0a),
    ("KVM_GET_DEVICE_ATTR", .getDeviceAttribute, .write, 24, 0xe2),
    ("KVM_HAS_DEVICE_ATTR", .hasDeviceAttribute, .write, 24, 0xe3),
    ("KVM_CREATE_VCPU", .createVCPU, .none, 0, 0x41),
    ("KVM_SET_USER_MEMORY_REGION", .setUserMemoryRegion, .write, 32, 0x46),
    ("KVM_SET_USER_MEMORY_REGION2", .setUserMemoryRegion2, .write, 160, 0x49),
    ("KVM_SET_MEMORY_ATTRIBUTES", .setMemoryAttributes, .write, 32, 0xd2),
    ("KVM_CREATE_GUEST_MEMFD", .createGuestMemfd, .readWrite, 64, 0xd4),
    ("KVM_MEMORY_ENCRYPT_OP", .memoryEncryptOp, .readWrite, 8, 0xba),
    ("KVM_MEMORY_ENCRYPT_REG_REGION", .memoryEncryptRegisterRegion, .read, 16, 0xbb),
    ("KVM_MEMORY_ENCRYPT_UNREG_REGION", .memoryEncryptUnregisterRegion, .read, 16, 0xbc),
    ("KVM_ENABLE_CAP", .enableCapability, .write, 104, 0xa3),
    ("KVM_CREATE_IRQCHIP", .createIRQChip, .none, 0, 0x60),
    ("KVM_CREATE_PIT2", .createPIT2, .write, 64, 0x77),
    ("KVM_SET_NR_MMU_PAGES", .setMMUPageCount, .none, 0, 0x44),
    ("KVM_SET_TSS_ADDR", .setTSSAddress, .none, 0, 0x47),
    ("KVM_SET_IDENTITY_MAP_ADDR", .setIdentityMapAddress, .write, 8, 0x48),
    ("KVM_SET_BOOT_CPU_ID", .setBootCPUID, .none, 0, 0x78),
    ("KVM_IRQFD", .irqfd, .write, 32, 0x76),
    ("KVM_IOEVENTFD", .ioeventfd, .write, 64, 0x79),
    ("KVM_SIGNAL_MSI", .signalMSI, .write, 32, 0xa5),
    ("KVM_TPR_ACCESS_REPORTING", .tprAccessReporting, .readWrite, 40, 0x92),
    ("KVM_SET_VAPIC_ADDR", .setVAPICAddress, .write, 8, 0x93),
    ("KVM_IRQ_LINE", .irqLine, .write, 8, 0x61),
    ("KVM_IRQ_LINE_STATUS", .irqLineStatus, .readWrite, 8, 0x67),
    ("KVM_REGISTER_COALESCED_MMIO", .registerCoalescedMMIO, .write, 16, 0x67),
    ("KVM_UNREGISTER_COALESCED_MMIO", .unregisterCoalescedMMIO, .write, 16, 0x68),
    ("KVM_CLEAR_DIRTY_LOG", .clearDirtyLog, .readWrite, 24, 0xc0),
    ("KVM_REINJECT_CONTROL", .reinjectControl, .none, 0, 0x71),
    ("KVM_X86_GET_MCE_CAP_SUPPORTED", .getMCECapSupported, .read, 8, 0x9d),
    ("KVM_X86_SETUP_MCE", .setupMCE, .write, 8, 0x9c),
    ("KVM_X86_SET_MCE", .setMCE, .write, 64, 0x9e),
    ("KVM_SET_GSI_ROUTING", .setGSIRouting, .write, 8, 0x6a),
    ("KVM_GET_IRQCHIP", .getIRQChip, .readWrite, 520, 0x62),
    ("KVM_SET_IRQCHIP", .setIRQChip, .read, 520, 0x63),
    ("KVM_GET_PIT2", .getPIT2, .read, 112, 0x9f),
    ("KVM_SET_PIT2", .setPIT2, .write, 112, 0xa0),
    ("KVM_SET_CLOCK", .setClock, .write, 48, 0x7b),
    ("KVM_GET_CLOCK", .getClock, .read, 48, 0x7c),
    ("KVM_X86_SET_MSR_FILTER", .setMSRFilter, .write, 392, 0xc6),
    ("KVM_GET_DIRTY_LOG", .getDirtyLog, .write, 16, 0x42),
    ("KVM_SET_TSC_KHZ", .setTSCkHz, .none, 0, 0xa2),
    ("KVM_GET_TSC_KHZ", .getTSCkHz, .none, 0, 0xa3),
    ("KVM_RUN", .run, .none, 0, 0x80),
    ("KVM_GET_REGS", .getRegisters, .read, 144, 0x81),
    ("KVM_SET_REGS", .setRegisters, .write, 144, 0x82),
    ("KVM_GET_SREGS", .getSpecialRegisters, .read, 312, 0x83),
    ("KVM_SET_SREGS", .setSpecialRegisters, .write, 312, 0x84),
    ("KVM_GET_SREGS2", .getSpecialRegisters2, .read, 320, 0xcc),
    ("KVM_SET_SREGS2", .setSpecialRegisters2, .write, 320, 0xcd),
    ("KVM_GET_MSRS", .getMSRs, .readWrite, 8, 0x88),
    ("KVM_SET_MSRS", .setMSRs, .write, 8, 0x89),
    ("KVM_SET_CPUID2", .setCPUID2, .write, 8, 0x90),
    ("KVM_GET_CPUID2", .getCPUID2, .readWrite, 8, 0x91),
    ("KVM_GET_LAPIC", .getLAPIC, .read, 1024, 0x8e),
    ("KVM_SET_LAPIC", .setLAPIC, .write, 1024, 0x8f),
    ("KVM_GET_MP_STATE", .getMPState, .read, 4, 0x98),
    ("KVM_SET_MP_STATE", .setMPState, .write, 4, 0x99),
    ("KVM_GET_VCPU_EVENTS", .getVCPUEvents, .read, 64, 0x9f),
    ("KVM_SET_VCPU_EVENTS", .setVCPUEvents, .write, 64, 0xa0),
    ("KVM_GET_XSAVE", .getXSave, .read, 4096, 0xa4),
    ("KVM_GET_XSAVE2", .getXSave2, .read, 4096, 0xcf),
    ("KVM_SET_XSAVE", .setXSave, .write, 4096, 0xa5),
    ("KVM_GET_XCRS", .getXCRs, .read, 392, 0xa6),
    ("KVM_SET_XCRS", .setXCRs, .write, 392, 0xa7),
    ("KVM_GET_FPU", .getFPU, .read, 416, 0x8c),
    ("KVM_SET_FPU", .setFPU, .write, 416, 0x8d),
    ("KVM_GET_DEBUGREGS", .getDebugRegisters, .read, 128, 0xa1),
    ("KVM_SET_DEBUGREGS", .setDebugRegisters, .write, 128, 0xa2),
    ("KVM_SET_GUEST_DEBUG", .setGuestDebug, .write, 72, 0x9b),
    ("KVM_INTERRUPT", .interrupt, .write, 4, 0x86),
    ("KVM_NMI", .nmi, .none, 0, 0x9a),
    ("KVM_SMI", .smi, .none, 0, 0xb7),
    ("KVM_SET_SIGNAL_MASK", .setSignalMask, .write, 4, 0x8b),
    ("KVM_TRANSLATE", .translate, .readWrite, 24, 0x85),
    ("KVM_KVMCLOCK_CTRL", .kvmclockControl, .none, 0, 0xad),
    ("KVM_PRE_FAULT_MEMORY", .preFaultMemory, .readWrite, 64, 0xd5),
    ("KVM_GET_ONE_REG", .getOneRegister, .write, 16, 0xab),
    ("KVM_SET_ONE_REG", .setOneRegister, .write, 16, 0xac),
    ("SEV_ISSUE_CMD", .sevIssueCommand, .readWrite, 16, 0x00),
]

/// CKVM's constants by name.
private let constants: [String: UInt32] = Dictionary(
    uniqueKeysWithValues: (0..<ckvm_constant_count()).map {
        let entry = ckvm_constant_at($0)
        return (String(cString: entry.name), entry.value)
    })

@Suite struct RequestTests {
    @Test(arguments: table.indices)
    func `is direction, length, type and number`(_ index: Int) {
        let row = table[index]
        let type: UInt32 = row.name.hasPrefix("SEV_") ? 0x53 : 0xae
        let word = row.direction.rawValue << 30 | row.byteCount << 16 | type << 8 | row.number
        #expect(row.request.rawValue == word, "\(row.name)")
        #expect(constants[row.name] == word, "\(row.name)")
        #expect(row.request.kernelName == row.name)
    }

    @Test func `no two requests share a word`() {
        #expect(Set(table.map(\.request)).count == table.count)
        #expect(IoctlRequest.named.count == table.count)
    }

    @Test func `an unknown word prints as hex`() {
        #expect(IoctlRequest(rawValue: 0xdead_beef).description == "request 0xdeadbeef")
    }

    /// Capability numbers, exit reasons, SEV command ids and firmware statuses print by the kernel's names, so a name
    /// with its number here is the number in the code.
    @Test func `open enumerations name the numbers of the table`() {
        for (name, value) in constants {
            if name.hasPrefix("KVM_CAP_") { #expect(Capability(rawValue: value).description == name) }
            if name.hasPrefix("KVM_EXIT_") { #expect(ExitReason(rawValue: value).description == name) }
            if name.hasPrefix("KVM_SEV_"), !name.contains("PAGE_TYPE") {
                #expect(SEVCommandID(rawValue: value).description == name)
            }
            if name.hasPrefix("SEV_RET_") {
                #expect(FirmwareStatus(rawValue: value).name == String(name.dropFirst(8)))
            }
        }
    }

    @Test func `the named values are the table's`() {
        #expect(VMType.snp.rawValue == constants["KVM_X86_SNP_VM"])
        #expect(VMType.sev.rawValue == constants["KVM_X86_SEV_VM"])
        #expect(VMType.sevES.rawValue == constants["KVM_X86_SEV_ES_VM"])
        #expect(SEVCommandID.initialize2.rawValue == constants["KVM_SEV_INIT2"])
        #expect(SEVCommandID.snpLaunchStart.rawValue == constants["KVM_SEV_SNP_LAUNCH_START"])
        #expect(SEVCommandID.snpLaunchUpdate.rawValue == constants["KVM_SEV_SNP_LAUNCH_UPDATE"])
        #expect(SEVCommandID.snpLaunchFinish.rawValue == constants["KVM_SEV_SNP_LAUNCH_FINISH"])
        #expect(UInt32(KVM.hypercallMapGPARange) == constants["KVM_HC_MAP_GPA_RANGE"])
        #expect(UInt32(KVMMemoryAttributes.privateAttribute) == constants["KVM_MEMORY_ATTRIBUTE_PRIVATE"])
        #expect(UInt32(RunPage.MemoryFault.privateFlag) == constants["KVM_MEMORY_EXIT_FLAG_PRIVATE"])
        #expect(KVMUserspaceMemoryRegion2.guestMemfdFlag == constants["KVM_MEM_GUEST_MEMFD"])
        #expect(KVMUserspaceMemoryRegion.readOnly == constants["KVM_MEM_READONLY"])
        #expect(KVMUserspaceMemoryRegion.logDirtyPages == constants["KVM_MEM_LOG_DIRTY_PAGES"])
        #expect(KVMCPUIDEntry.significantIndex == constants["KVM_CPUID_FLAG_SIGNIFCANT_INDEX"])
        #expect(KVMDeviceAttribute.groupSEV == constants["KVM_X86_GRP_SEV"])
        #expect(SystemEventType.sevTermination.rawValue == constants["KVM_SYSTEM_EVENT_SEV_TERM"])
        #expect(SEVDeviceCommand.platformStatus.rawValue == constants["SEV_PLATFORM_STATUS"])
        #expect(SEVDeviceCommand.snpPlatformStatus.rawValue == constants["SNP_PLATFORM_STATUS"])
        #expect(SEVDeviceCommand.getID2.rawValue == constants["SEV_GET_ID2"])
    }

    @Test func `error numbers print with name and number`() {
        #expect(Errno.EINVAL.description == "EINVAL (22)")
        #expect(Errno(rawValue: 4095).description == "errno 4095")
        #expect(FirmwareStatus.invalidParameter.description == "INVALID_PARAM (0x16)")
        #expect(FirmwareStatus(rawValue: 0x999).description == "firmware status 0x999")
        #expect(FirmwareStatus.noFirmwareCall.name == "NO_FW_CALL")
    }
}
