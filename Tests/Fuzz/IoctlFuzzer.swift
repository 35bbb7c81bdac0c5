// Requests in any order, on any handle, with any bytes: the software kernel answers each with an errno or does it.
// Pointers inside the bytes lead to memory of the fuzzer or to nowhere, as a hostile but running process would have them.

import KVMABI
import SoftwareKVM
import TestSupport

let ioctlFuzzers = [
    Fuzzer(
        name: "ioctl", summary: "forty requests with edge values on a VM of the software kernel", smokeIterations: 300,
        generate: { $0.bytes(8) }, check: checkRequests)
]

/// The fuzzer's own memory, which pointers lead to: eight pages of guest RAM and a page of structures.
nonisolated(unsafe) private let ownMemory = UnsafeMutableRawBufferPointer.allocate(
    byteCount: 16 * 4096, alignment: 4096)
nonisolated(unsafe) private let argument = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 4096)

private let machineRequests: [IoctlRequest] = [
    .createVCPU, .createVCPU, .setUserMemoryRegion, .setUserMemoryRegion2, .setUserMemoryRegion2, .setMemoryAttributes,
    .createGuestMemfd, .memoryEncryptOp, .memoryEncryptOp, .enableCapability, .createIRQChip, .createPIT2, .irqLine,
    .signalMSI, .setGSIRouting, .getIRQChip, .setIRQChip, .setClock, .getClock, .setTSCkHz, .checkExtension,
]
private let processorRequests: [IoctlRequest] = [
    .run, .run, .getRegisters, .setRegisters, .getSpecialRegisters, .setSpecialRegisters, .getMSRs, .setMSRs,
    .setCPUID2,
    .getCPUID2, .getLAPIC, .setLAPIC, .getMPState, .setMPState, .getVCPUEvents, .setVCPUEvents, .getXSave, .setXSave,
    .getXCRs, .setXCRs, .getFPU, .setFPU, .getDebugRegisters, .setDebugRegisters, .interrupt, .nmi, .kvmclockControl,
    .preFaultMemory, .setTSCkHz, .getTSCkHz, .setSpecialRegisters2, .getSpecialRegisters2,
]

@Sendable private func checkRequests(_ input: [UInt8]) -> Outcome {
    var numbers = SeededGenerator(seed: input.prefix(8).reduce(0) { $0 << 8 | UInt64($1) })
    var accepted = 0
    do {
        var configuration = SoftwareKVM.Configuration()
        configuration.seed = 1
        configuration.systemMemoryByteCount = 64 << 20
        let kernel = try SoftwareKVM(configuration: configuration)
        let requests = IoctlRequest.named.sorted { $0.rawValue < $1.rawValue }

        var handles = [try kernel.open(.kvm), try kernel.open(.sev)]
        // Half of the guests are SNP guests (VM type 4); SEV guests have a fuzzer of their own.
        var machines: [KernelHandle] = []
        var processors: [KernelHandle] = []
        if let vm = try? kernel.ioctl(handles[0], .createVM, .value(numbers.below(2) == 0 ? 0 : 4)) {
            handles.append(KernelHandle(rawValue: vm))
            machines.append(KernelHandle(rawValue: vm))
        }
        var runPages: [KernelMapping] = []
        for _ in 0..<40 {
            // Mostly a request on a handle of its kind, else anything on anything.
            var request = requests[numbers.below(requests.count)]
            var handle = handles[numbers.below(handles.count)]
            switch numbers.below(20) {
            case 0: request = IoctlRequest(rawValue: numbers.edge())
            case 1: handle = KernelHandle(rawValue: Int32(truncatingIfNeeded: numbers.edge(UInt32.self)))
            case 2, 3: break
            case 4...11 where !processors.isEmpty:
                handle = processors[numbers.below(processors.count)]
                request = processorRequests[numbers.below(processorRequests.count)]
            default:
                guard !machines.isEmpty else { continue }
                handle = machines[numbers.below(machines.count)]
                request = machineRequests[numbers.below(machineRequests.count)]
            }
            if request == .run {
                // Only whether it may run: a guest made of noise would run for ever.
                for page in runPages { page.store(UInt8(1), at: 1) }
            }
            fill(request, &numbers)
            let result: Int32
            do {
                switch request == .createVCPU ? 0 : numbers.below(8) {
                case 0 where request == .createVCPU:
                    result = try kernel.ioctl(handle, request, .value(UInt64(numbers.below(3))))
                case 0: result = try kernel.ioctl(handle, request, .value(numbers.edge()))
                case 1: result = try kernel.ioctl(handle, request, .none)
                default:
                    let count = numbers.below(8) == 0 ? numbers.below(64) : argument.count
                    result = try kernel.ioctl(handle, request, .bytes(.init(rebasing: argument[..<count])))
                }
            } catch { continue }
            accepted += 1
            if [.createVM, .createVCPU, .createGuestMemfd].contains(request) {
                let made = KernelHandle(rawValue: result)
                handles.append(made)
                if request == .createVM { machines.append(made) }
                if request == .createVCPU { processors.append(made) }
                if request == .createVCPU, let page = try? kernel.map(made, offset: 0, byteCount: 4096) {
                    page.store(UInt8(1), at: 1)
                    runPages.append(page)
                }
            }
            if numbers.below(30) == 0 { kernel.close(handles[numbers.below(handles.count)]) }
        }
        for handle in handles.reversed() { kernel.close(handle) }
    } catch {
        return .impossible("no kernel: \(error)")
    }
    return accepted == 0 ? .uninteresting("all refused") : .fine("\(accepted / 4 * 4) or more accepted")
}

/// Edge values everywhere; pointers and the numbers of commands where the request has them.
private func fill(_ request: IoctlRequest, _ numbers: inout SeededGenerator) {
    func pointer() -> UInt64 {
        switch numbers.below(4) {
        case 0: [0, 0x1000, 0xdead_0000_0000, 0xffff_8000_0000_0000, .max][numbers.below(5)]
        default: UInt64(UInt(bitPattern: ownMemory.baseAddress)) + UInt64(numbers.below(16)) * 4096
        }
    }
    for word in 0..<64 { argument.storeBytes(of: numbers.edge(UInt64.self), toByteOffset: 8 * word, as: UInt64.self) }
    for word in 0..<64 { ownMemory.storeBytes(of: numbers.edge(UInt64.self), toByteOffset: 8 * word, as: UInt64.self) }
    func store<T>(_ value: T, _ offset: Int) { argument.storeBytes(of: value, toByteOffset: offset, as: T.self) }
    switch request {
    case .setUserMemoryRegion, .setUserMemoryRegion2:
        // slot, flags, guest address, byte count, our address.
        store(UInt32(numbers.below(4)), 0)
        store(UInt32(numbers.below(8)), 4)
        store(UInt64(numbers.below(16)) * 4096, 8)
        store(UInt64(numbers.below(16)) * 4096, 16)
        store(pointer(), 24)
        if numbers.below(2) == 0 { store(UInt64(0), 32) }
    case .createGuestMemfd:
        store(UInt64(numbers.below(32)) * 4096, 0)
        store(UInt64(0), 8)
        for word in 2..<8 { store(UInt64(0), 8 * word) }
    case .setMemoryAttributes:
        store(UInt64(numbers.below(16)) * 4096, 0)
        store(UInt64(numbers.below(16)) * 4096, 8)
        store(UInt64(numbers.below(2)) * 8, 16)
        store(UInt64(0), 24)
    case .memoryEncryptOp:
        // kvm_sev_cmd: number, flags, data, error, descriptor of the device.
        store(UInt32([22, 100, 101, 102, 0, 1, 2, 3, 7][numbers.below(9)]), 0)
        store(UInt32(0), 4)
        store(UInt64(UInt(bitPattern: ownMemory.baseAddress)), 8)
        store(UInt32(numbers.below(6)), 20)
        if numbers.below(2) == 0 {
            for word in 0..<16 { ownMemory.storeBytes(of: 0, toByteOffset: 8 * word, as: UInt64.self) }
            ownMemory.storeBytes(of: 0x30000, toByteOffset: 0, as: UInt64.self)
        }
    case .setCPUID2, .getCPUID2, .getSupportedCPUID, .getMSRs, .setMSRs, .getMSRIndexList:
        store(UInt32(numbers.below(2) == 0 ? UInt64(numbers.below(100)) : numbers.edge() & 0xffff_ffff), 0)
    default:
        if numbers.below(3) == 0 { store(pointer(), 8 * numbers.below(4)) }
    }
}
