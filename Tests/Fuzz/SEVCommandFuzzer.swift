// SEV commands in any order, with any structure, on guests at any stage of a launch, and /dev/sev beside them: the software
// kernel answers each with an errno and a status, or does it.

import Glibc
import KVMABI
import SoftwareKVM
import TestSupport

let sevCommandFuzzers = [
    Fuzzer(
        name: "sev-commands", summary: "forty SEV commands on a SEV or SEV-ES guest of the software kernel",
        smokeIterations: 200, generate: { $0.bytes(8) }, check: checkSEVCommands)
]

/// Guest RAM and whatever else the caller's pointers lead to. Nothing is mapped behind it: a command with a great length must
/// not reach the fuzzer's own heap.
nonisolated(unsafe) private let ownMemory: UnsafeMutableRawBufferPointer = {
    let byteCount = 32 * 4096
    guard
        let start = mmap(nil, byteCount + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        start != MAP_FAILED, mprotect(start + byteCount, 4096, PROT_NONE) == 0
    else { fatalError("no memory for the fuzzer") }
    return UnsafeMutableRawBufferPointer(start: start, count: byteCount)
}()
/// The structure of one command.
nonisolated(unsafe) private let structure = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)

@Sendable private func checkSEVCommands(_ input: [UInt8]) -> Outcome {
    var numbers = SeededGenerator(seed: input.prefix(8).reduce(0) { $0 << 8 | UInt64($1) })
    var accepted = 0
    do {
        var configuration = SoftwareKVM.Configuration()
        configuration.seed = 1
        configuration.systemMemoryByteCount = 64 << 20
        let kernel = try SoftwareKVM(configuration: configuration)
        let kvm = try kernel.open(.kvm)
        let sev = try kernel.open(.sev)
        let (type, start): (UInt64, SEVCommandID) =
            [(2, .initialize2), (3, .initialize2), (0, .initialize), (0, .initializeES)][numbers.below(4)]
        let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: type))
        let base = UInt64(UInt(bitPattern: ownMemory.baseAddress))
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(slot: 0, memoryByteCount: 16 * 4096, userspaceAddress: base))

        func command(_ id: SEVCommandID) {
            let address = UInt64(UInt(bitPattern: structure.baseAddress))
            var envelope = KVMSEVCommand(
                id: id, data: numbers.below(16) == 0 ? numbers.edge() : address, sevHandle: sev)
            if numbers.below(16) == 0 { envelope.sevHandle = UInt32(numbers.below(6)) }
            do {
                try kernel.call(vm, .memoryEncryptOp, &envelope)
                accepted += 1
            } catch {}
        }
        // Most guests get as far as START by the right way.
        if numbers.below(8) != 0 {
            structure.initializeMemory(as: UInt8.self, repeating: 0)
            command(start)
            _ = try? kernel.call(vm, .createVCPU, value: 0)
            let isES = type == 3 || start == .initializeES
            structure.storeBytes(of: isES ? 4 : 0, toByteOffset: 4, as: UInt32.self)
            command(.launchStart)
        }
        for _ in 0..<40 {
            fill(&numbers)
            switch numbers.below(8) {
            case 0:
                let low = UInt64(UInt(bitPattern: structure.baseAddress))
                var envelope = SEVIssueCommand(SEVDeviceCommand(rawValue: UInt32(numbers.below(14))), data: low)
                do {
                    try kernel.call(sev, .sevIssueCommand, &envelope)
                    accepted += 1
                } catch {}
            case 1:
                let region = KVMEncryptedRegion(address: pointer(&numbers), byteCount: length(&numbers))
                let request: IoctlRequest =
                    numbers.below(2) == 0 ? .memoryEncryptRegisterRegion : .memoryEncryptUnregisterRegion
                _ = try? kernel.call(vm, request, reading: region)
            case 2: command(SEVCommandID(rawValue: numbers.edge()))
            default: command(SEVCommandID(rawValue: UInt32(numbers.below(23))))
            }
        }
        for handle in [vm, sev, kvm] { kernel.close(handle) }
    } catch {
        return .impossible("no guest: \(error)")
    }
    return accepted == 0 ? .uninteresting("all refused") : .fine("\(accepted / 4 * 4) or more accepted")
}

private func pointer(_ numbers: inout SeededGenerator) -> UInt64 {
    let own = UInt64(UInt(bitPattern: ownMemory.baseAddress))
    switch numbers.below(8) {
    case 0: return [0, 0x1000, 0xdead_0000_0000, 0xffff_8000_0000_0000, .max][numbers.below(5)]
    case 1: return own + UInt64(numbers.below(31 * 4096))
    default: return own + UInt64(numbers.below(24)) * 4096
    }
}

private func length(_ numbers: inout SeededGenerator) -> UInt64 {
    switch numbers.below(4) {
    case 0: numbers.edge()
    case 1: UInt64(numbers.below(6000))
    default: [16, 32, 48, 52, 128, 208, 2084, 4096, 6252, 16384, 16385][numbers.below(11)]
    }
}

/// Pointers and lengths in the places where the structures have them: an address of 8 bytes, a length of 4 or 8.
private func fill(_ numbers: inout SeededGenerator) {
    let shift = numbers.below(4) == 0 ? 4 : 0
    for offset in stride(from: 0, to: 96, by: 16) {
        let address = numbers.below(8) == 0 ? numbers.edge() : pointer(&numbers)
        structure.storeBytes(of: address, toByteOffset: offset + shift, as: UInt64.self)
        structure.storeBytes(of: length(&numbers), toByteOffset: offset + 8, as: UInt64.self)
    }
    // START, LAUNCH_START: handle and policy.
    if numbers.below(3) == 0 {
        structure.storeBytes(of: UInt32(numbers.below(2)), toByteOffset: 0, as: UInt32.self)
        structure.storeBytes(of: UInt32(numbers.below(8)), toByteOffset: 4, as: UInt32.self)
    }
    if numbers.below(4) == 0 { structure.initializeMemory(as: UInt8.self, repeating: 0) }
}
