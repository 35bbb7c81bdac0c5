// MSR accesses that the VMM wants to refuse or to answer: KVM_X86_SET_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR.

import KVMABI
import X86Core

/// `kvm_msr_filter`: what guests may do with which MSR.
struct MSRFilter: Sendable {
    struct Range: Sendable {
        var numbers: Swift.Range<UInt64>
        /// 1 read, 2 write.
        var kinds: UInt32
        /// A set bit allows.
        var bitmap: [UInt8]
    }
    var allowsOthers: Bool
    var ranges: [Range]

    func allows(_ number: UInt32, kind: UInt32) -> Bool {
        // x2APIC's registers are never filtered.
        if MSRNumber.x2apic.contains(number) { return true }
        for range in ranges where range.kinds & kind != 0 && range.numbers.contains(UInt64(number)) {
            let bit = Int(UInt64(number) - range.numbers.lowerBound)
            return range.bitmap[bit >> 3] >> UInt8(bit & 7) & 1 != 0
        }
        return allowsOthers
    }
}

extension VirtualMachine {
    /// Header of 8 bytes, then sixteen ranges of 24: flags, count, first number, address of the bitmap.
    func setMSRFilter(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let flags: UInt32 = try argument.load()
        if flags & ~1 != 0 { throw .EINVAL }
        var filter = MSRFilter(allowsOthers: flags & 1 == 0, ranges: [])
        for index in 0..<16 {
            let at = 8 + 24 * index
            let kinds: UInt32 = try argument.load(at: at)
            let count: UInt32 = try argument.load(at: at + 4)
            let first: UInt32 = try argument.load(at: at + 8)
            let address: UInt64 = try argument.load(at: at + 16)
            if count == 0 { continue }
            let byteCount = (Int(count) + 63) / 64 * 8
            if kinds == 0 || kinds & ~3 != 0 || byteCount > 0x600 { throw .EINVAL }
            filter.ranges.append(
                MSRFilter.Range(
                    numbers: UInt64(first)..<UInt64(first) + UInt64(count), kinds: kinds,
                    bitmap: try kernel.user.read(address, byteCount: byteCount)))
        }
        if filter.ranges.isEmpty && !filter.allowsOthers { throw .EINVAL }
        // Nothing to filter is no filter.
        let new = filter.ranges.isEmpty ? nil : filter
        msrFilter.withLock { $0 = new }
        for vcpu in vcpus { vcpu.paused { vcpu.interceptMSRs(new != nil) } }
        return 0
    }
}

extension VirtualCPU {
    /// Reasons to ask the VMM.
    private enum Reason {
        static let invalid: UInt32 = 1
        static let unknown: UInt32 = 2
        static let filtered: UInt32 = 4
    }

    /// With a filter, the processor's own MSRs leave the guest too. Guests that own their state keep them.
    func interceptMSRs(_ intercepts: Bool) { processor?.interceptsOwnMSRs = intercepts && !protectsState }

    func handleMSR(_ number: UInt32, writing value: UInt64?, _ processor: Processor) -> RunStep {
        let filter = vm.msrFilter.withLock { $0 }
        if let filter, !filter.allows(number, kind: value == nil ? 1 : 2) {
            return refuseMSR(number, writing: value, reason: Reason.filtered, processor)
        }
        if let value {
            guard writeMSR(number, value) else {
                let isKnown = readMSR(number, hostInitiated: true) != nil
                return refuseMSR(
                    number, writing: value, reason: isKnown ? Reason.invalid : Reason.unknown, processor)
            }
            processor.completeMSR(value: value)
        } else {
            guard let value = readMSR(number) else {
                let isKnown = readMSR(number, hostInitiated: true) != nil
                return refuseMSR(number, writing: nil, reason: isKnown ? Reason.invalid : Reason.unknown, processor)
            }
            processor.completeMSR(value: value)
        }
        return .resume
    }

    private func refuseMSR(_ number: UInt32, writing value: UInt64?, reason: UInt32, _ processor: Processor) -> RunStep
    {
        guard vm.userSpaceMSRReasons.load(ordering: .relaxed) & reason != 0 else {
            processor.injectException(vector: 13, errorCode: 0)
            return .resume
        }
        runPage.msr = RunPage.MSRAccess(reason: reason, index: number, data: value ?? 0)
        completion = .msr
        return .exit(value == nil ? .readMSR : .writeMSR)
    }

    /// The VMM's answer.
    func completeMSRAccess() -> RunStep {
        if runPage.msr.error != 0 {
            processor?.injectException(vector: 13, errorCode: 0)
        } else {
            processor?.completeMSR(value: runPage.msr.data)
        }
        return .resume
    }
}
