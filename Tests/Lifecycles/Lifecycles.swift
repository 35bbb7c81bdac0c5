// Starts and stops machines again and again in one process, and shows what the process holds in between.
//
//     lifecycles IMAGE none|sev|sev-es|snp COUNT [VCPUS]
//
// IMAGE: a flat guest that powers itself off. The software kernel is made anew after every tenth machine. Prints one line when
// only a few have been started, to warm up, and one at the end:
//
//     descriptors 5 threads 1 mappings 61 residentKiB 20480

import Glibc
import GuestImage
import SEVABI
import SNPVMM
import SoftwareKVM
import TestSupport

@main
enum Lifecycles {
    static let memoryByteCount: UInt64 = 16 << 20
    static let warmUpCount = 50

    static func main() throws {
        let arguments = CommandLine.arguments
        guard (4...5).contains(arguments.count), let image = readFile(arguments[1]), let count = Int(arguments[3]),
            count > 0,
            arguments[2] == "none" || GuestTechnology(rawValue: arguments[2]) != nil
        else {
            print("usage: lifecycles IMAGE none|sev|sev-es|snp COUNT [VCPUS]")
            exit(2)
        }
        let technology = GuestTechnology(rawValue: arguments[2])
        let processorCount = arguments.count > 4 ? Int(arguments[4]) ?? 1 : 1
        try repeatedly(warmUpCount, image, technology, processorCount)
        printHoldings()
        try repeatedly(count, image, technology, processorCount)
        printHoldings()
    }

    static func repeatedly(_ count: Int, _ image: [UInt8], _ technology: GuestTechnology?, _ processorCount: Int) throws
    {
        var left = count
        while left > 0 {
            let some = min(left, 10)
            let host = try Host(try SoftwareKVM())
            for _ in 0..<some { try startAndStop(image, technology, processorCount, host) }
            left -= some
        }
    }

    static func startAndStop(_ image: [UInt8], _ technology: GuestTechnology?, _ processorCount: Int, _ host: Host)
        throws
    {
        guard case .kernel(let kernel) = try GuestImage.identify(image) else { fatalError("not a flat guest") }
        let cpuid = try host.guestCPUID(processorCount: processorCount, technology: technology)
        let plan = try DirectBoot.plan(
            BootPayload(kernel: kernel, commandLine: []),
            on: MachineDescription(
                memoryByteCount: memoryByteCount, processorCount: processorCount, technology: technology, cpuid: cpuid))
        let machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: technology, memoryByteCount: memoryByteCount, plan: plan, cpuid: cpuid),
            console: { _ in })
        let outcome = machine.run()
        guard case .powerOff = outcome else { fatalError("the guest ended otherwise: \(outcome)") }
    }

    static func printHoldings() {
        func lines(_ path: String) -> [Substring] {
            String(decoding: readFile(path) ?? [], as: UTF8.self).split(separator: "\n")
        }
        let resident = lines("/proc/self/status").first { $0.hasPrefix("VmRSS:") }?.filter(\.isNumber) ?? ""
        print(
            "descriptors \(folderEntries("/proc/self/fd").count) threads \(folderEntries("/proc/self/task").count) "
                + "mappings \(lines("/proc/self/maps").count) residentKiB \(resident)")
    }
}
