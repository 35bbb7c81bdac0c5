// KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS: what waits to be delivered, and what was delivered last [KVM
// KVM_GET_VCPU_EVENTS].

import KVMABI

/// The exception fields that KVM keeps as they were set, whether an exception waits or not.
struct ExceptionRecord: Equatable {
    var number: UInt8 = 0
    var hasErrorCode: UInt8 = 0
    var errorCode: UInt32 = 0
    var hasPayload: UInt8 = 0
    var payload: UInt64 = 0
    /// The one that waits is `pending`, not `injected`: KVM_SET_REGS takes it back.
    var isPending = false
}

extension VirtualCPU {
    private enum Flag {
        static let nmiPending: UInt32 = 1, startupVector: UInt32 = 2, shadow: UInt32 = 4, systemManagement: UInt32 = 8
        static let payload: UInt32 = 16, tripleFault: UInt32 = 32
        static let all: UInt32 = 63
    }

    var events: KVMVCPUEvents {
        var value = KVMVCPUEvents()
        value.interruptInjected = queuedVector == nil || queuedVectorIsSoft ? 0 : 1
        value.interruptNumber = lastQueuedVector
        let record = exceptionRecord
        // INT3 and INTO are executed again instead: their length is no part of the structure.
        if queuedException != nil, record.number != 3, record.number != 4 {
            let reportsPayloads = vm.reportsPayloads.load(ordering: .relaxed)
            value.exceptionPending = record.isPending ? 1 : 0
            value.exceptionInjected = record.isPending && reportsPayloads ? 0 : 1
        }
        value.exceptionNumber = record.number
        value.exceptionHasErrorCode = record.hasErrorCode
        value.exceptionErrorCode = record.errorCode
        value.exceptionHasPayload = record.hasPayload
        value.exceptionPayload = record.payload
        value.nmiInjected = nmiInjected ? 1 : 0
        value.latchedInit = vm.interrupts.withLock {
            $0.apics.indices.contains(index) && $0.apics[index].initPending ? 1 : 0
        }
        value.nmiPending = UInt8(truncatingIfNeeded: pendingNMIs)
        value.nmiMasked = areNMIsMasked ? 1 : 0
        // The VMCB has one bit for both kinds of shadow.
        value.interruptShadow = isInInterruptShadow ? 3 : 0
        value.flags = Flag.nmiPending | Flag.shadow | Flag.systemManagement
        if vm.reportsPayloads.load(ordering: .relaxed) { value.flags |= Flag.payload }
        if vm.reportsTripleFaults.load(ordering: .relaxed) {
            value.flags |= Flag.tripleFault
            value.tripleFaultPending = tripleFaultPending ? 1 : 0
        }
        return value
    }

    func setEvents(_ value: KVMVCPUEvents) throws(Errno) {
        if value.flags & ~Flag.all != 0 { throw .EINVAL }
        let knowsPayload = value.flags & Flag.payload != 0
        if knowsPayload, !vm.reportsPayloads.load(ordering: .relaxed) { throw .EINVAL }
        let isPending = knowsPayload && value.exceptionPending != 0
        let isInjected = value.exceptionInjected != 0 && !isPending
        if isPending || isInjected, value.exceptionNumber > 31 || value.exceptionNumber == 2 { throw .EINVAL }
        if value.flags & Flag.systemManagement != 0, value.smm | value.smiPending != 0, mpState == .initReceived {
            throw .EINVAL
        }
        exceptionRecord = ExceptionRecord(
            number: value.exceptionNumber, hasErrorCode: value.exceptionHasErrorCode == 0 ? 0 : 1,
            errorCode: value.exceptionErrorCode, hasPayload: isPending && value.exceptionHasPayload != 0 ? 1 : 0,
            payload: value.exceptionPayload, isPending: isPending)
        queuedException =
            isPending || isInjected
            ? (value.exceptionNumber, value.exceptionHasErrorCode != 0 ? value.exceptionErrorCode : nil) : nil
        lastQueuedVector = value.interruptNumber
        queuedVector = value.interruptInjected != 0 ? value.interruptNumber : nil
        queuedVectorIsSoft = value.interruptSoft != 0
        nmiInjected = value.nmiInjected != 0
        let pending = value.flags & Flag.nmiPending != 0 ? Int(value.nmiPending) : pendingNMIs
        areNMIsMasked = value.nmiMasked != 0
        if value.flags & Flag.shadow != 0 { isInInterruptShadow = value.interruptShadow != 0 }
        setPendingNMIs(pending)
        if value.flags & Flag.startupVector != 0 {
            vm.interrupts.withLock { controller in
                guard controller.apics.indices.contains(index) else { return }
                controller.apics[index].lastStartupVector = UInt8(truncatingIfNeeded: value.sipiVector)
            }
        }
        // No SMM in this machine; KVM finds that out here, behind what it has taken over.
        if value.flags & Flag.systemManagement != 0, value.smm | value.smiPending | value.smmInsideNMI != 0 {
            throw .EINVAL
        }
        if value.flags & Flag.systemManagement != 0 {
            let isLatched = value.latchedInit != 0
            vm.interrupts.withLock { controller in
                guard controller.apics.indices.contains(index) else { return }
                controller.apics[index].initPending = isLatched
            }
        }
        if value.flags & Flag.tripleFault != 0 {
            if !vm.reportsTripleFaults.load(ordering: .relaxed) { throw .EINVAL }
            tripleFaultPending = value.tripleFaultPending != 0
        }
    }

    /// An external interrupt that the VMM injects; the last one counts [KVM kvm_queue_interrupt].
    func queue(vector: UInt8) {
        queuedVector = vector
        lastQueuedVector = vector
        queuedVectorIsSoft = false
    }

    // MARK: NMIs

    /// NMIs that wait.
    var pendingNMIs: Int {
        vm.interrupts.withLock { controller in
            controller.apics.indices.contains(index) ? controller.apics[index].nmiCount : nil
        } ?? nmisWithoutLAPIC
    }

    /// Two at most, and one while another one's handler runs [KVM process_nmi].
    func setPendingNMIs(_ count: Int) {
        let count = min(count, areNMIsMasked || nmiInjected ? 1 : 2)
        let found = vm.interrupts.withLock { controller in
            guard controller.apics.indices.contains(index) else { return false }
            controller.apics[index].nmiCount = count
            return true
        }
        if !found { nmisWithoutLAPIC = count }
    }
}
