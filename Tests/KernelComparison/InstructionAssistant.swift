// An instruction that a kernel's emulator lacks, executed by the software kernel: the state goes over, one step is made in
// the same memory, the state goes back. So a guest can be followed beyond the first gap of an incomplete emulator; the
// transcript says what was executed for the kernel.

import KVMABI
import SoftwareKVM
import Synchronization

/// A software VM that shares the memory of the VM that it helps.
public final class InstructionAssistant: Sendable {
    private let kernel: any HostKernel
    private let kvm: KernelHandle
    private let vm: KernelHandle
    private let vcpu: KernelHandle
    private let page: RunPage
    /// One vCPU is helped at a time.
    private let lock = Mutex(false)

    /// The MSRs that instructions read.
    private static let msrs: [UInt32] = [
        0x174, 0x175, 0x176, 0x277, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102, 0xc000_0103,
    ]

    public init() throws {
        var configuration = SoftwareKVM.Configuration()
        configuration.systemMemoryByteCount = 64 << 20
        kernel = try SoftwareKVM(configuration: configuration)
        kvm = try kernel.open(.kvm)
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: 0))
        vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        let byteCount = try kernel.call(kvm, .getVCPUMmapSize)
        page = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(byteCount)))
    }

    deinit {
        for handle in [vcpu, vm, kvm] { kernel.close(handle) }
    }

    /// The helped VM's memory: the same addresses of this process.
    func setRegion(_ region: KVMUserspaceMemoryRegion) throws(Errno) {
        try kernel.call(vm, .setUserMemoryRegion, reading: region)
    }

    /// How an instruction ended.
    enum Outcome {
        case done
        /// A triple fault.
        case shutdown
        /// It wants more than one step, an exit for example; the vCPU is as it was.
        case failed
    }

    /// Executes one instruction of another kernel's vCPU.
    func step(_ other: any HostKernel, _ handle: KernelHandle, _ cpuid: [KVMCPUIDEntry]) throws(Errno) -> Outcome {
        try lock.withLock { (hasCPUID) throws(Errno) in
            if !hasCPUID {
                var list = KVMCPUIDList.encode(cpuid)
                try kernel.call(vcpu, .setCPUID2, bytes: &list)
                hasCPUID = true
            }
            return try step(other, handle)
        }
    }

    private func step(_ other: any HostKernel, _ handle: KernelHandle) throws(Errno) -> Outcome {
        var registers = KVMRegisters()
        var special = KVMSpecialRegisters()
        var debug = KVMDebugRegisters()
        var fpu = KVMFPU()
        var msrs = KVMMSRList.encode(reading: Self.msrs)
        try other.call(handle, .getRegisters, &registers)
        try other.call(handle, .getSpecialRegisters, &special)
        try other.call(handle, .getDebugRegisters, &debug)
        try other.call(handle, .getFPU, &fpu)
        try other.call(handle, .getMSRs, bytes: &msrs)
        let base = special.apicBase
        special.interruptBitmap = .init(repeating: 0)
        try kernel.call(vcpu, .setRegisters, reading: registers)
        try kernel.call(vcpu, .setSpecialRegisters, reading: special)
        try kernel.call(vcpu, .setDebugRegisters, reading: debug)
        try kernel.call(vcpu, .setFPU, reading: fpu)
        try kernel.call(vcpu, .setMSRs, bytes: &msrs)
        try kernel.call(vcpu, .setVCPUEvents, reading: KVMVCPUEvents())

        var control = KVMGuestDebug()
        control.control = KVMGuestDebug.enable | KVMGuestDebug.singleStep
        try kernel.call(vcpu, .setGuestDebug, reading: control)
        var specialBefore = special
        try kernel.call(vcpu, .getSpecialRegisters, &specialBefore)
        _ = try kernel.call(vcpu, .run)
        if page.exitReason == .shutdown { return .shutdown }
        guard page.exitReason == .debug else { return .failed }

        try kernel.call(vcpu, .getRegisters, &registers)
        try kernel.call(vcpu, .getSpecialRegisters, &special)
        if special.kernelBytes != specialBefore.kernelBytes {
            special.apicBase = base
            try other.call(handle, .setSpecialRegisters, reading: special)
        }
        try other.call(handle, .setRegisters, reading: registers)
        let (debugBefore, fpuBefore) = (debug.kernelBytes, fpu.kernelBytes)
        try kernel.call(vcpu, .getDebugRegisters, &debug)
        if debug.kernelBytes != debugBefore { try other.call(handle, .setDebugRegisters, reading: debug) }
        try kernel.call(vcpu, .getFPU, &fpu)
        if fpu.kernelBytes != fpuBefore { try other.call(handle, .setFPU, reading: fpu) }
        return .done
    }
}
