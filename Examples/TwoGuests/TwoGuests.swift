// Lesson: several guests at once. One process, one kernel, two machines on two threads: each has an ASID and a key of its
// own, so the same image at the same address is another ciphertext in each.
//
//     swift run -c release example-two-guests .guest/guest.img sev-es sev-es
//
// Both boot the same image with the same command line. Their consoles come line by line, each with its guest's number.

import Dispatch
import Glibc
import GuestImage
import SEVABI
import SNPVMM
import SoftwareKVM
import Synchronization

@main
enum TwoGuestsExample {
    static func main() throws {
        let arguments = CommandLine.arguments
        let technologies = (arguments.count == 2 ? ["sev-es", "sev-es"] : Array(arguments.dropFirst(2)))
            .map { GuestTechnology(rawValue: $0) }
        guard [2, 4].contains(arguments.count), let bytes = contents(of: arguments[1]), !technologies.contains(nil)
        else {
            print("usage: example-two-guests IMAGE [sev|sev-es|snp sev|sev-es|snp]")
            exit(2)
        }

        let kernel = try SoftwareKVM()
        let host = try Host(kernel)
        let guests = try technologies.compactMap { $0 }.enumerated().map { number, technology in
            try Guest(number: number + 1, technology, image: bytes, host: host)
        }
        for guest in guests {
            guard let protection = kernel.guestProtection(of: guest.machine.vmHandle) else { continue }
            print("guest \(guest.number): \(guest.technology.displayName), ASID \(protection.asid)")
        }

        // One thread per guest; a run ends when its guest does.
        let group = DispatchGroup()
        for guest in guests { guest.start(in: group) }
        group.wait()

        // What the host sees of one page that both were launched with. An SNP guest's private pages it cannot reach.
        let page = guests[0].firstPage
        let views = try guests.map { try $0.machine.hostView(at: page.gpa, byteCount: 4096) }
        print("the page at 0x\(String(page.gpa, radix: 16)): the same \(page.label) in both images")
        for (guest, view) in zip(guests, views) {
            print("  guest \(guest.number): \(view.map { hex($0.prefix(16)) + " …" } ?? "out of the host's reach")")
        }
        let isProtected = !views.contains { $0 == page.contents } && (views[0] == nil || views[0] != views[1])
        let allEnded = guests.allSatisfy { $0.exitStatus == 0 }
        print(isProtected && allEnded ? "PASS: two guests, two keys" : "FAIL")
        exit(isProtected && allEnded ? 0 : 1)
    }

    static func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.reduce(into: "") { $0 += ($1 < 16 ? "0" : "") + String($1, radix: 16) }
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

/// A machine with a thread and a line-wise console.
final class Guest: Sendable {
    /// The first page of the plan whose contents can be compared.
    struct Page: Sendable {
        let label: String
        let gpa: UInt64
        let contents: [UInt8]
    }

    let number: Int
    let technology: GuestTechnology
    let machine: Machine
    let firstPage: Page
    private let status = Mutex<Int32>(-1)
    var exitStatus: Int32 { status.withLock { $0 } }

    init(number: Int, _ technology: GuestTechnology, image: [UInt8], host: Host) throws {
        self.number = number
        self.technology = technology
        let memoryByteCount: UInt64 = 256 << 20
        let cpuid = try host.guestCPUID(processorCount: 1, technology: technology)
        let description = MachineDescription(memoryByteCount: memoryByteCount, technology: technology, cpuid: cpuid)
        let commandLine = Array("console=ttyS0 quiet panic=-1 reboot=a snp.autotest".utf8)
        let plan =
            switch try GuestImage.identify(image) {
            case .unifiedKernelImage(let uki):
                try DirectBoot.plan(
                    BootPayload(kernel: uki.kernel, initrd: uki.initrd, commandLine: commandLine), on: description)
            case .kernel(let kernel):
                try DirectBoot.plan(BootPayload(kernel: kernel, commandLine: commandLine), on: description)
            case .firmware(let firmware): try FirmwareLaunch.plan(firmware, on: description)
            case .igvm: fatalError("an IGVM file can be measured, not launched")
            }
        guard let region = plan.regions.first(where: { $0.label == "kernel" && $0.contents.count >= 4096 }) else {
            fatalError("an image without a page of kernel")
        }
        firstPage = Page(label: region.label, gpa: region.gpa, contents: Array(region.contents.prefix(4096)))
        let console = LineConsole(prefix: "guest \(number)| ")
        machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: technology, memoryByteCount: memoryByteCount, plan: plan, cpuid: cpuid),
            console: { console.write($0) })
    }

    /// Runs the guest on a thread of its own.
    func start(in group: DispatchGroup) {
        DispatchQueue(label: "guest \(number)").async(group: group) { [self] in
            let outcome = machine.run()
            if let error = outcome.error { print("guest \(number): \(error)") }
            status.withLock { $0 = outcome.exitStatus.rawValue }
        }
    }
}

/// Prints whole lines, each with a prefix: two consoles on one output stay readable.
final class LineConsole: Sendable {
    private let prefix: String
    private let line = Mutex<[UInt8]>([])

    init(prefix: String) { self.prefix = prefix }

    func write(_ byte: UInt8) {
        let finished: [UInt8]? = line.withLock { line in
            if byte == UInt8(ascii: "\r") { return nil }
            guard byte == UInt8(ascii: "\n") else {
                line.append(byte)
                return nil
            }
            defer { line = [] }
            return line
        }
        if let finished { print(prefix + String(decoding: finished, as: UTF8.self)) }
    }
}
