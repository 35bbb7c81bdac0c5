// Lesson: the VMM as a library. One plan is measured by the guest's owner and launched by the host; the software kernel
// stands in for the real one, and nothing above it would change with `LinuxKVM`.
//
//     swift run -c release example-measured-launch .guest/guest.img

import Glibc
import GuestImage
import LaunchMeasurement
import SNPVMM
import SoftwareKVM

@main
enum MeasuredLaunchExample {
    static func main() throws {
        guard CommandLine.arguments.count == 2, let bytes = contents(of: CommandLine.arguments[1]) else {
            print("usage: example-measured-launch IMAGE")
            exit(2)
        }

        // The host kernel: four calls, and the real kernel's bytes. Everything above knows it as `HostKernel` only.
        let host = try Host(try SoftwareKVM())
        let cpuid = try host.guestCPUID(processorCount: 1, technology: .snp)

        // The plan is a value: which pages with which contents, in which order, and the processor's first state.
        let memoryByteCount: UInt64 = 256 << 20
        let description = MachineDescription(memoryByteCount: memoryByteCount, cpuid: cpuid)
        let plan =
            switch try GuestImage.identify(bytes) {
            case .unifiedKernelImage(let image): try DirectBoot.plan(BootPayload(image), on: description)
            case .kernel(let kernel): try DirectBoot.plan(BootPayload(kernel: kernel), on: description)
            case .firmware(let firmware): try FirmwareLaunch.plan(firmware, on: description)
            case .igvm: fatalError("an IGVM file can be measured, not launched")
            }

        // What the owner expects: computed from the plan alone.
        print("expected launch digest: \(MeasuredLaunch(of: plan).digest)")

        // What the host does: KVM_CREATE_VM to SNP_LAUNCH_FINISH, then KVM_RUN until the guest ends.
        let machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: .snp, memoryByteCount: memoryByteCount, plan: plan, cpuid: cpuid),
            console: { putchar(Int32($0)) })
        let outcome = machine.run()
        if let error = outcome.error { print(error) }
        print("\(machine.statistics.exitCount) exits, \(machine.statistics.pages.sharedPages) pages shared at the end")
        exit(outcome.exitStatus.rawValue)
    }

    /// A whole file; nil where it cannot be read.
    static func contents(of path: String) -> [UInt8]? {
        guard let file = fopen(path, "rb") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 { bytes += buffer[..<count] }
        return bytes
    }
}
