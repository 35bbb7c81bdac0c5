// Guests that fill their GHCB with noise and call the hypervisor with it, over and over: the whole way through the
// software kernel and the VMM. Such a guest may be ended at any moment. The VMM must not trap, must not leave by an error
// of its own, and must not take for ever.
//
// The guest is Firmware/tests/ghcb-noise.s; each input is a seed, a number of rounds and a choice of events for it.

import GuestImage
import KVMABI
import SNPVMM
import SoftwareKVM
import TestSupport
import X86Defs

let ghcbFuzzers = [
    Fuzzer(
        name: "ghcb", summary: "an SNP guest with noise in its GHCB, through kernel and VMM", smokeIterations: 30,
        generate: { $0.bytes(10) }, check: checkGHCB)
]

/// The parameters lie behind each other in the guest's data, the seed first.
private let seedInGuest = [UInt8](hex: "157c4a7fb979379e") ?? []

/// The guest's ELF file and where its parameters are; nil when it has not been built.
private let noiseGuest: (bytes: [UInt8], parameters: Int)? = {
    guard let path = BuiltGuest.firmware("ghcb-noise"), let bytes = readFile(path) else { return nil }
    let last = bytes.count - 24
    guard last > 0, let place = (0..<last).first(where: { bytes[$0..<$0 + 8].elementsEqual(seedInGuest) }) else {
        return nil
    }
    return (bytes, place)
}()

@Sendable private func checkGHCB(_ input: [UInt8]) -> Outcome {
    guard let (original, place) = noiseGuest else { return .uninteresting("no guest: run `make firmware`") }
    guard input.count >= 10 else { return .uninteresting("no parameters") }
    var bytes = original
    bytes.replaceSubrange(place..<place + 8, with: input.prefix(7) + [1])
    bytes[place + 8] = input[8]
    bytes[place + 9] = input[9] & 1
    bytes[place + 16] = input[9] & 2 == 0 ? 15 : 31

    do {
        let image = try GuestImage.identify(bytes)
        guard case .kernel(let kernel) = image else { return .impossible("the guest is \(image.formName)") }
        var configuration = SoftwareKVM.Configuration()
        configuration.seed = 1
        let host = try Host(try SoftwareKVM(configuration: configuration))
        let cpuid = try host.guestCPUID(processorCount: 1, technology: .snp)
        let memoryByteCount: UInt64 = 24 << 20
        let plan = try DirectBoot.plan(
            BootPayload(kernel: kernel), on: MachineDescription(memoryByteCount: memoryByteCount, cpuid: cpuid))
        let machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: .snp, memoryByteCount: memoryByteCount, plan: plan, cpuid: cpuid),
            console: { _ in })
        switch machine.run() {
        case .powerOff: return .fine("power-off")
        case .resetRequested: return .fine("reset")
        case .exited: return .impossible("a debug exit without such a port")
        case .stopped: return .impossible("stopped, but nobody asked for it")
        case .terminated: return .fine("terminated")
        case .failed(let error):
            return error.exitStatus == .guestFailed ? .fine("guest failed") : .impossible("\(error)")
        }
    } catch {
        return .impossible("no launch: \(error)")
    }
}
