// What the seam tells about a host: every question that a launch depends on, asked once.

import HostDiagnosis
import KVMABI
import SEVABI

extension HostProbe {
    /// The facts that a kernel and its secure processor tell. No guest is launched; VMs are made and initialised for a
    /// moment, which takes an ASID.
    ///
    /// - Parameter chipID: Record what names the machine, too.
    public static func facts(of kernel: any HostKernel, chipID: Bool = false) -> HostFacts {
        var facts = HostFacts()
        do {
            let system = try kernel.open(.kvm)
            defer { kernel.close(system) }
            facts[.nodeKVM] = .text("ok")
            askSystem(kernel, system, &facts)
            let guests: [(GuestTechnology, HostFact)] = [
                (.sev, .initializeSEV), (.sevES, .initializeSEVES), (.snp, .initializeSNP),
            ]
            for (technology, fact) in guests {
                facts[fact] = .text(initialization(of: VMType(technology), kernel, system))
            }
        } catch {
            facts[.nodeKVM] = .text(name(error))
        }
        do {
            let sev = try kernel.open(.sev)
            kernel.close(sev)
            facts[.nodeSEV] = .text("ok")
            if let platform = try? SEVPlatform(kernel) { askPlatform(platform, chipID, &facts) }
        } catch {
            facts[.nodeSEV] = .text(name(error))
        }
        return facts
    }

    // MARK: /dev/kvm

    private static func askSystem(_ kernel: any HostKernel, _ system: KernelHandle, _ facts: inout HostFacts) {
        func ask(_ fact: HostFact, _ body: () throws(Errno) -> UInt64) {
            do { facts[fact] = .number(try body()) } catch { facts[fact] = .unreadable(name(error)) }
        }
        ask(.kvmVersion) { () throws(Errno) in UInt64(UInt32(bitPattern: try kernel.call(system, .getAPIVersion))) }
        let capabilities: [(HostFact, Capability)] = [
            (.vmTypes, .vmTypes), (.guestMemfd, .guestMemfd), (.memoryAttributes, .memoryAttributes),
            (.userMemory2, .userMemory2), (.memoryFaultInfo, .memoryFaultInfo), (.exitHypercall, .exitHypercall),
            (.maximumVCPUs, .maximumVCPUCount),
        ]
        for (fact, capability) in capabilities {
            ask(fact) { () throws(Errno) in
                UInt64(
                    UInt32(bitPattern: try kernel.call(system, .checkExtension, value: UInt64(capability.rawValue))))
            }
        }
        let attributes: [(HostFact, UInt64)] = [
            (.vmsaFeatures, KVMDeviceAttribute.sevVMSAFeatures), (.policyBits, KVMDeviceAttribute.snpPolicyBits),
            (.certificateRequests, KVMDeviceAttribute.snpCertificateRequests),
        ]
        for (fact, attribute) in attributes {
            ask(fact) { () throws(Errno) in
                var value: UInt64 = 0
                try withKernelAddress(of: &value) { (address) throws(Errno) -> Void in
                    try kernel.call(
                        system, .getDeviceAttribute,
                        reading: KVMDeviceAttribute(
                            group: KVMDeviceAttribute.groupSEV, attribute: attribute, address: address))
                }
                return value
            }
        }
    }

    /// "ok", or what refused: "KVM_SEV_INIT2 EBUSY".
    private static func initialization(of type: VMType, _ kernel: any HostKernel, _ system: KernelHandle) -> String {
        let vm: KernelHandle
        do {
            vm = KernelHandle(rawValue: try kernel.call(system, .createVM, value: UInt64(type.rawValue)))
        } catch { return "KVM_CREATE_VM \(name(error))" }
        defer { kernel.close(vm) }
        var initialization = KVMSEVInit()
        var status: UInt32 = 0
        do {
            try withKernelAddress(of: &initialization) { (address) throws(Errno) -> Void in
                var command = KVMSEVCommand(id: .initialize2, data: address)
                defer { status = command.error }
                try kernel.call(vm, .memoryEncryptOp, &command)
            }
            return "ok"
        } catch {
            let firmware = error == .EIO ? " " + (FirmwareStatus(rawValue: status).name ?? "fw_error=\(status)") : ""
            return "KVM_SEV_INIT2 \(name(error))\(firmware)"
        }
    }

    // MARK: /dev/sev

    private static func askPlatform(_ platform: SEVPlatform, _ chipID: Bool, _ facts: inout HostFacts) {
        do {
            let status = try platform.status()
            facts[.firmwareAnswer] = .text("ok")
            facts[.firmwareAPI] = .text("\(status.apiMajor).\(status.apiMinor)")
            facts[.firmwareBuild] = .number(UInt64(status.build))
            facts[.firmwareState] = .number(UInt64(status.state))
            facts[.firmwareFlags] = .number(UInt64(status.flags))
            facts[.firmwareGuests] = .number(UInt64(status.guestCount))
        } catch { facts[.firmwareAnswer] = .text(answer(error)) }
        do {
            let status = try platform.snpStatus()
            facts[.snpAnswer] = .text("ok")
            facts[.snpState] = .number(UInt64(status.state))
            facts[.snpRMPFlags] = .number(UInt64(status.rmpFlags))
            facts[.snpFlags] = .number(UInt64(status.flags))
            facts[.snpGuests] = .number(UInt64(status.guestCount))
            facts[.currentTCB] = .number(status.currentTCB)
            facts[.reportedTCB] = .number(status.reportedTCB)
        } catch { facts[.snpAnswer] = .text(answer(error)) }
        guard chipID else { return }
        do {
            facts[.chipID] = .text(
                try platform.chipID().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())
        } catch { facts[.chipID] = .unreadable(answer(error)) }
    }

    private static func answer(_ error: VMMError) -> String {
        let parts = [error.request, error.errno.map { name($0) }, error.firmwareStatus.map { $0.name ?? "\($0)" }]
        return parts.compactMap(\.self).joined(separator: " ")
    }

    private static func name(_ errno: Errno) -> String { errno.name ?? "errno=\(errno.rawValue)" }
}
