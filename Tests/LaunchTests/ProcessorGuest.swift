// A guest of a few dozen bytes of machine code on the software processor, as SNP guest or plain.

import KVMABI
import SEVABI
import SoftwareKVM
import X86Defs

/// Memory: page tables at 0x2000 (identity, 2 MiB pages, 1 GiB), code at 0x10000, stack below 0x20000.
final class ProcessorGuest {
    static let codeGPA = 0x1_0000
    let vm: TestVM
    let isSNP: Bool

    /// - Parameter sharedRange: GPAs mapped and marked shared, for SNP guests.
    init(snp: Bool, code: [UInt8], data: [(gpa: Int, bytes: [UInt8])] = [], sharedRange: Range<UInt64>? = nil) throws {
        isSNP = snp
        vm = try TestVM(type: snp ? .snp : .plain)
        let kernel = vm.kernel
        try kernel.call(vm.vm, .createIRQChip)
        var image = [UInt8](repeating: 0, count: TestVM.memoryByteCount)
        func put(_ gpa: Int, _ bytes: [UInt8]) { image.replaceSubrange(gpa..<gpa + bytes.count, with: bytes) }
        let cBit: UInt64 = snp ? 1 << 51 : 0
        put(0x2000, (0x3003 | cBit).kernelBytes)
        put(0x3000, (0x4003 | cBit).kernelBytes)
        put(0x4000, (0x5003 | cBit).kernelBytes)
        for page in 0..<512 {
            let gpa = UInt64(page) << 12
            let isShared = sharedRange?.contains(gpa) ?? false
            put(0x5000 + 8 * page, (gpa | 3 | (isShared ? 0 : cBit)).kernelBytes)
        }
        put(Self.codeGPA, code)
        for (gpa, bytes) in data { put(gpa, bytes) }

        var state = TestVM.longModeState
        state.cr3 = 0x2000 | cBit
        state.rip = UInt64(Self.codeGPA)
        state.generalRegisters[4] = 0x2_0000
        if snp {
            try kernel.call(vm.vm, .enableCapability, reading: KVMEnableCapability(.exitHypercall, argument: 0x1000))
            try vm.initialize2()
            try vm.addMemory()
            try vm.setPrivate(0, UInt64(TestVM.memoryByteCount))
            if let sharedRange { try vm.setPrivate(sharedRange.lowerBound, UInt64(sharedRange.count), false) }
            try vm.addVCPU()
            try vm.setState(state)
            guard vm.start().errno == nil else { throw Errno.EIO }
            let source = try vm.pages(image)
            let load = { (range: Range<UInt64>) in
                guard !range.isEmpty else { return }
                let result = self.vm.update(
                    .normal, gpa: range.lowerBound, pages: UInt64(range.count) >> 12, source: source,
                    sourceOffset: range.lowerBound)
                guard result.errno == nil, result.argument.byteCount == 0 else { throw Errno.EIO }
            }
            let end = UInt64(TestVM.memoryByteCount)
            try load(0..<(sharedRange?.lowerBound ?? end))
            try load((sharedRange?.upperBound ?? end)..<end)
            guard vm.finish().errno == nil else { throw Errno.EIO }
        } else {
            let mapping = try kernel.map(.anonymous, offset: 0, byteCount: TestVM.memoryByteCount)
            mapping.write(image, at: 0)
            vm.shared = mapping
            var region = vm.region()
            region.flags = 0
            try kernel.call(vm.vm, .setUserMemoryRegion2, reading: region)
            try vm.addVCPU()
            try vm.setState(state)
        }
    }

    var runPage: RunPage { vm.runPage! }

    /// One KVM_RUN. Returns its exit, or the errno.
    func run() -> Result<ExitReason, Errno> {
        do throws(Errno) {
            try vm.kernel.call(vm.vcpu, .run)
            return .success(runPage.exitReason)
        } catch {
            return .failure(error)
        }
    }
}

/// Instructions that the tests use, as bytes.
enum Code {
    /// mov ecx, 0xC0010130; mov eax, low; mov edx, high; wrmsr; rep vmmcall (VMGEXIT).
    static func vmgexit(msr value: UInt64) -> [UInt8] {
        [0xb9, 0x30, 0x01, 0x01, 0xc0] + [0xb8] + UInt32(truncatingIfNeeded: value).kernelBytes + [0xba]
            + UInt32(truncatingIfNeeded: value >> 32).kernelBytes + [0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9]
    }
    /// mov rax, [absolute]: through rbx.
    static func load(_ address: UInt32) -> [UInt8] { [0xbb] + address.kernelBytes + [0x48, 0x8b, 0x03] }
    /// mov [absolute], rax: through rbx.
    static func store(_ address: UInt32) -> [UInt8] { [0xbb] + address.kernelBytes + [0x48, 0x89, 0x03] }
    static let halt: [UInt8] = [0xf4]
    /// jmp to itself.
    static let spin: [UInt8] = [0xeb, 0xfe]
}
