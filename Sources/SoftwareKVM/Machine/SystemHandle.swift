// Requests on /dev/kvm [KVM 4, system ioctls].

import KVMABI

extension SoftwareKVM {
    func systemRequest(_ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        switch request {
        case .getAPIVersion:
            if argument.number != 0 { throw .EINVAL }
            return KVM.apiVersion
        case .createVM: return try createVM(argument.number)
        case .checkExtension:
            return value(of: Capability(rawValue: UInt32(truncatingIfNeeded: argument.number)), vmType: nil)
        case .getVCPUMmapSize:
            if argument.number != 0 { throw .EINVAL }
            return Int32(VirtualCPU.mappingByteCount)
        case .getSupportedCPUID:
            return
                try listCPUID(configuration.scenario.shown(configuration.profile.supportedCPUID), argument)
        case .getMSRIndexList: return try listMSRs(MSRNumber.savedByVMM, argument)
        case .getMSRFeatureIndexList: return try listMSRs(MSRNumber.features, argument)
        case .getMCECapSupported:
            try argument.store(MachineCheck.supportedCapabilities)
            return 0
        case .getMSRs: return try readFeatureMSRs(argument)
        case .getDeviceAttribute, .hasDeviceAttribute:
            return try deviceAttribute(argument, reads: request == .getDeviceAttribute)
        default: throw .EINVAL
        }
    }

    private func createVM(_ number: UInt64) throws(Errno) -> Int32 {
        guard number < 32 else { throw .EINVAL }
        let type = VMType(rawValue: UInt32(number))
        guard configuration.scenario.makes(type) else { throw .EINVAL }
        let vm = VirtualMachine(kernel: self, type: type)
        return try handles.insert(.vm(vm)).rawValue
    }

    /// The argument of KVM_SET_TSC_KHZ: 32 bits, 0 for the host's own frequency.
    func tscKHz(_ argument: IoctlArgument) throws(Errno) -> UInt32 {
        let kHz = UInt32(truncatingIfNeeded: argument.number)
        if kHz >= Self.tscKHzLimit { throw .EINVAL }
        return kHz == 0 ? configuration.tscKHz : kHz
    }

    /// What KVM scales to at most [KVM max_guest_tsc_khz].
    private static let tscKHzLimit: UInt32 = 0x7fff_ffff

    /// E2BIG when `nent` is too small; no count comes back then.
    func listCPUID(_ entries: [KVMCPUIDEntry], _ argument: IoctlArgument) throws(Errno) -> Int32 {
        let room: UInt32 = try argument.load()
        if room < UInt32(entries.count) { throw .E2BIG }
        for (index, entry) in entries.enumerated() { try argument.store(entry, at: 8 + 40 * index) }
        try argument.store(UInt32(entries.count))
        return 0
    }

    /// The count comes back also with E2BIG.
    private func listMSRs(_ numbers: [UInt32], _ argument: IoctlArgument) throws(Errno) -> Int32 {
        let room: UInt32 = try argument.load()
        try argument.store(UInt32(numbers.count))
        if room < UInt32(numbers.count) { throw .E2BIG }
        for (index, number) in numbers.enumerated() { try argument.store(number, at: 4 + 4 * index) }
        return 0
    }

    private func readFeatureMSRs(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let count: UInt32 = try argument.load()
        if count >= 256 { throw .E2BIG }
        for index in 0..<Int(count) {
            var entry = try argument.load(KVMMSREntry.self, at: 8 + 16 * index)
            switch entry.index {
            case MSRNumber.microcodeRevision: entry.data = MSRNumber.microcodeRevisionValue
            case MSRNumber.deConfiguration: entry.data = MSRNumber.deConfigurationValue
            default: return Int32(index)
            }
            try argument.store(entry, at: 8 + 16 * index)
        }
        return Int32(count)
    }

    /// Group KVM_X86_GRP_SEV; an unknown group or attribute is ENXIO.
    private func deviceAttribute(_ argument: IoctlArgument, reads: Bool) throws(Errno) -> Int32 {
        let attribute: KVMDeviceAttribute = try argument.load()
        guard attribute.group == KVMDeviceAttribute.groupSEV,
            attribute.attribute < configuration.scenario.deviceAttributeCount
        else { throw .ENXIO }
        let value: UInt64
        switch attribute.attribute {
        case KVMDeviceAttribute.sevVMSAFeatures: value = Self.supportedVMSAFeatures
        case KVMDeviceAttribute.snpPolicyBits:
            value = configuration.scenario.vmTypes.contains(.snp) ? acceptedPolicyBits : 0
        case KVMDeviceAttribute.snpCertificateRequests: value = configuration.scenario.vmTypes.contains(.snp) ? 1 : 0
        default: throw .ENXIO
        }
        if reads { try user.write(value.kernelBytes, to: attribute.address) }
        return 0
    }

    /// `kvm_sev_init.vmsa_features` bits accepted: the machine has neither debug swap nor Secure TSC.
    static var supportedVMSAFeatures: UInt64 { 0 }
    /// Policy bits accepted: minimum ABI, SMT, the reserved one, debug, single socket [SNP 4.3].
    var acceptedPolicyBits: UInt64 {
        configuration.scenario.acceptedPolicyBits ?? (0xffff | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 20)
    }
}
