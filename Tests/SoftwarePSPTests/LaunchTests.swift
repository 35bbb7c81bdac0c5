import Crypto
import Glibc
import MemoryController
import SEVABI
import SoftwarePSP
import Testing

@Suite("SNP launch")
struct LaunchTests {
    static let page = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ 5) }
    static let zeroes = [UInt8](repeating: 0, count: 4096)

    /// LD by the book, independent of the firmware's code: SHA-384 over concatenated bytes.
    static func digest(
        _ current: [UInt8], _ type: UInt8, _ contents: [UInt8]?, gpa: UInt64, _ permissions: [UInt8] = [0, 0, 0]
    )
        -> [UInt8]
    {
        let hash = contents.map { array(SHA384.hash($0)) } ?? [UInt8](repeating: 0, count: 48)
        let address = (0..<8).map { UInt8(truncatingIfNeeded: gpa >> UInt64(8 * $0)) }
        return array(SHA384.hash(current + hash + [0x70, 0, type, 0, 0] + permissions + address))
    }

    static func array(_ bytes: [48 of UInt8]) -> [UInt8] { bytes.indices.map { bytes[$0] } }

    @Test("every page type: what is measured, what the guest reads, what the page becomes")
    func pageTypes() throws {
        let platform = try Platform()
        let memory = platform.memory
        let context = platform.launchingGuest()
        var digest = [UInt8](repeating: 0, count: 48)
        #expect(platform.processor.launchDigest(of: context) == LaunchDigest())
        let table = CPUIDTable(entries: Platform.cpuid.supported).bytes
        let cases: [(PageType, [UInt8], Bool, [UInt8]?)] = [
            (.normal, Self.page, true, Self.page), (.vmsa, Self.page, true, Self.page),
            (.zero, Self.page, false, Self.zeroes),
            (.zero, [], false, Self.zeroes), (.unmeasured, Self.page, false, Self.page),
            (.secrets, Self.page, false, nil),
            (.cpuid, table, false, table), (.normal, [], true, Self.zeroes),
        ]
        for (index, (type, contents, isMeasured, expected)) in cases.enumerated() {
            let gpa = UInt64(index + 1) * 0x1000
            let page = try platform.preGuestPage(gpa: gpa, contents)
            let buffer = SNPLaunchUpdate(context: context, pageType: type, address: page)
            #expect(platform.submit(.snpLaunchUpdate, buffer.bytes) == .success)
            let plaintext = contents.isEmpty ? Self.zeroes : contents
            digest = Self.digest(digest, type.rawValue, isMeasured ? plaintext : nil, gpa: gpa)
            #expect(platform.processor.launchDigest(of: context)?.array == digest, "\(type)")
            let entry = try #require(memory.rmpEntry(page))
            #expect(entry.pageState == .guestValid && entry.isVMSA == (type == .vmsa) && entry.gpa == gpa)
            let seen = try #require(platform.load(page, gpa: gpa))
            if let expected { #expect(seen == expected) }
            #expect(try memory.hostRead(page, byteCount: 4096) != seen, "the host sees ciphertext")
            if type == .vmsa { #expect(memory.loadVMSA(page, asid: 1)?.bytes == Array(Self.page[..<0x670])) }
        }
        #expect(platform.finish(context) == .success)
        #expect(platform.processor.launchDigest(of: context)?.array == digest)
    }

    @Test("the mailbox and the direct entry are the same command")
    func sameCommand() throws {
        let platform = try Platform()
        let first = platform.launchingGuest(asid: 1)
        let second = platform.launchingGuest(asid: 2)
        let permissions = VMPLPermissions(vmpl1: 0xf, vmpl2: 3, vmpl3: 1)
        let a = try platform.preGuestPage(asid: 1, gpa: 0x5000, Self.page)
        let b = try platform.preGuestPage(asid: 2, gpa: 0x5000, Self.page)
        let buffer = SNPLaunchUpdate(context: first, pageType: .normal, address: a, permissions: permissions)
        #expect(platform.submit(.snpLaunchUpdate, buffer.bytes) == .success)
        #expect(
            platform.processor.launchUpdate(context: second, page: b, type: .normal, permissions: permissions)
                == .success)
        #expect(platform.processor.launchDigest(of: first) == platform.processor.launchDigest(of: second))
        #expect(
            platform.processor.launchDigest(of: first)?.array
                == Self.digest([UInt8](repeating: 0, count: 48), 1, Self.page, gpa: 0x5000, [0xf, 3, 1]))
        let entry = try #require(platform.memory.rmpEntry(a))
        #expect((0..<4).map { entry.permissions(vmpl: $0) } == [0xf, 0xf, 3, 1])
    }

    @Test("the secrets page")
    func secrets() throws {
        func secrets(_ platform: Platform) throws -> SecretsPage {
            let context = platform.createContext()
            let gosvw = Array(0x50..<0x60 as Range<UInt8>)
            let start = SNPLaunchStart(context: context, policy: .default, gosvw: gosvw)
            #expect(platform.submit(.snpLaunchStart, start.bytes) == .success && platform.activate(context) == .success)
            let page = try platform.preGuestPage(gpa: 0x8000, Self.page)
            #expect(platform.processor.launchUpdate(context: context, page: page, type: .secrets) == .success)
            let bytes = try #require(platform.load(page, gpa: 0x8000))
            let result = try #require(SecretsPage(bytes: bytes))
            #expect(result.gosvw == gosvw)
            return result
        }
        let page = try secrets(try Platform())
        #expect(page.version == 3 && page.fms == 0x00a0_0f11 && !page.isIMIEnabled)
        #expect(Set((0..<4).map { page.vmpck($0) }).count == 4)
        #expect(page.bytes[0xa0...].allSatisfy { $0 == 0 })
        #expect(try secrets(try Platform()) == page, "the same seed, the same keys")
        #expect(try secrets(try Platform(seed: 2)).vmpck(0) != page.vmpck(0))
        #expect(try secrets(try Platform(seed: nil)).vmpck(0) != page.vmpck(0))
    }

    @Test("a CPUID page that the processor does not allow comes back corrected, and again is accepted")
    func cpuid() throws {
        let platform = try Platform()
        let context = platform.launchingGuest()
        var entries = Platform.cpuid.supported
        entries[1].ecx |= 1 << 24
        let wrong = CPUIDTable(entries: entries).bytes
        let page = try platform.preGuestPage(gpa: 0x9000, wrong)
        let update = { platform.processor.launchUpdate(context: context, page: page, type: .cpuid) }
        #expect(update() == .invalidParameter)
        #expect(platform.processor.launchDigest(of: context) == LaunchDigest())
        #expect(platform.memory.rmpEntry(page)?.pageState == .preGuest)
        let corrected = try platform.memory.hostRead(page, byteCount: 4096)
        #expect(corrected == CPUIDTable(entries: Platform.cpuid.supported).bytes)
        // What a kernel does: reclaim, look, give it again.
        #expect(platform.submit(.snpPageReclaim, SNPPageReclaim(address: page).bytes) == .success)
        #expect(platform.memory.rmpUpdate(page, .shared) == .success)
        #expect(try platform.memory.hostRead(page, byteCount: 4096) == corrected)
        let request = RMPUpdate(gpa: 0x9000, assigned: true, immutable: true, asid: 1)
        #expect(platform.memory.rmpUpdate(page, request) == .success)
        #expect(update() == .success)
        #expect(platform.load(page, gpa: 0x9000) == corrected)
        // A count that cannot be.
        var tooMany = wrong
        tooMany[0] = 65
        let other = try platform.preGuestPage(gpa: 0xa000, tooMany)
        #expect(platform.processor.launchUpdate(context: context, page: other, type: .cpuid) == .invalidParameter)
        #expect(try platform.memory.hostRead(other, byteCount: 4096) == tooMany)
    }

    @Test("refused updates leave the page and the digest as they were")
    func refusals() throws {
        let platform = try Platform()
        let memory = platform.memory
        let context = platform.launchingGuest()
        let other = platform.launchingGuest(asid: 2)
        let page = try platform.preGuestPage(gpa: 0x1000, Self.page)
        func update(
            _ type: PageType = .normal, _ address: SPA? = nil, is2MiB: Bool = false, isIMI: Bool = false,
            _ permissions: VMPLPermissions = VMPLPermissions(), of guest: SPA? = nil
        ) -> SEVStatus {
            platform.submit(
                .snpLaunchUpdate,
                SNPLaunchUpdate(
                    context: guest ?? context, pageType: type, address: address ?? page, is2MiB: is2MiB,
                    isIMIPage: isIMI,
                    permissions: permissions
                ).bytes)
        }
        for type in [0, 7] as [UInt8] { #expect(update(PageType(rawValue: type)) == .invalidParameter) }
        #expect(
            platform.processor.launchUpdate(context: context, page: page, type: PageType(rawValue: 9))
                == .invalidParameter)
        #expect(update(isIMI: true) == .invalidParameter)
        for permissions in [
            VMPLPermissions(vmpl1: 0x10), VMPLPermissions(vmpl2: 0x80), VMPLPermissions(vmpl3: 0xff),
        ] { #expect(update(.normal, nil, permissions) == .invalidParameter) }
        for type in [PageType.vmsa, .secrets, .cpuid] { #expect(update(type, is2MiB: true) == .invalidParameter) }
        var reserved = SNPLaunchUpdate(context: context, pageType: .zero, address: page).bytes
        reserved[0x1f] = 1
        #expect(platform.submit(.snpLaunchUpdate, reserved) == .invalidParameter)
        for address in [SPA.zero, page + 8, memory.base + memory.byteCount, SPA(rawValue: .max)] {
            #expect(update(.normal, address) == .invalidAddress)
        }
        let large = try #require(memory.allocatePages(512, alignment: 512))
        #expect(
            memory.rmpUpdate(large, RMPUpdate(gpa: 0x20_0000, assigned: true, immutable: true, asid: 1)) == .success)
        #expect(update(.normal, large, is2MiB: true) == .invalidPageSize)
        #expect(update(.normal, large + 4096, is2MiB: true) == .invalidAddress)
        #expect(update(of: other) == .invalidPageOwner)
        #expect(update(of: page) == .invalidGuest && update(of: page + 1) == .invalidAddress)
        #expect(platform.processor.launchDigest(of: context) == LaunchDigest())
        #expect(memory.rmpEntry(page)?.pageState == .preGuest)
        #expect(try memory.hostRead(page, byteCount: 4096) == Self.page)
        #expect(update() == .success)
        #expect(update() == .invalidPageState, "a page goes in once")
        let hypervisor = try #require(memory.allocatePages())
        #expect(update(.normal, hypervisor) == .invalidPageState)
        #expect(update(.normal, context) == .invalidPageState)
    }

    @Test("a 2 MiB page is measured as 512 pages")
    func large() throws {
        let platform = try Platform()
        let context = platform.launchingGuest()
        let large = try #require(platform.memory.allocatePages(512, alignment: 512))
        try platform.memory.hostWrite(large + 0x7000, Self.page)
        let request = RMPUpdate(gpa: 0x40_0000, assigned: true, is2MiB: true, immutable: true, asid: 1)
        #expect(platform.memory.rmpUpdate(large, request) == .success)
        #expect(
            platform.submit(
                .snpLaunchUpdate,
                SNPLaunchUpdate(context: context, pageType: .normal, address: large, is2MiB: true).bytes)
                == .success)
        var digest = [UInt8](repeating: 0, count: 48)
        for page in 0..<512 {
            digest = Self.digest(digest, 1, page == 7 ? Self.page : Self.zeroes, gpa: 0x40_0000 + UInt64(page) * 4096)
        }
        #expect(platform.processor.launchDigest(of: context)?.array == digest)
        #expect(platform.load(large + 0x7000, gpa: 0x40_7000) == Self.page)
        #expect(platform.load(large + 0x8000, gpa: 0x40_8000) == Self.zeroes)
    }

    @Test("zero pages are launched without becoming resident")
    func residency() throws {
        func residentKiB() -> Int {
            guard let file = unsafe fopen("/proc/self/status", "r") else { return 0 }
            defer { unsafe fclose(file) }
            var line = [CChar](repeating: 0, count: 256)
            while unsafe fgets(&line, 256, file) != nil {
                let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                if text.hasPrefix("VmRSS:") { return Int(text.filter(\.isNumber)) ?? 0 }
            }
            return 0
        }
        let memory = try SystemMemory(byteCount: 1 << 30)
        let processor = SecureProcessor(memory: memory, profile: .milan(cpuid: Platform.cpuid))
        var buffer = SNPInitEx().bytes
        #expect(processor.submit(.snpInitializeEx, &buffer) == .success)
        let context = try #require(memory.allocatePages())
        #expect(memory.rmpUpdate(context, RMPUpdate(assigned: true, immutable: true)) == .success)
        buffer = SNPAddressBuffer(address: context).bytes
        #expect(processor.submit(.snpGuestContextCreate, &buffer) == .success)
        buffer = SNPLaunchStart(context: context, policy: .default).bytes
        #expect(processor.submit(.snpLaunchStart, &buffer) == .success)
        buffer = SNPActivate(context: context, asid: 1).bytes
        #expect(processor.submit(.snpActivate, &buffer) == .success)
        let before = residentKiB()
        let pageCount = 32768
        var refused = 0
        for page in 0..<pageCount {
            let spa = try #require(memory.allocatePages())
            let request = RMPUpdate(gpa: UInt64(page) * 4096, assigned: true, immutable: true, asid: 1)
            if memory.rmpUpdate(spa, request) != .success { refused += 1 }
            if processor.launchUpdate(context: context, page: spa, type: .zero) != .success { refused += 1 }
        }
        #expect(refused == 0)
        // 128 MiB of guest memory: its RMP entries and tags, and nothing of itself.
        #expect(residentKiB() - before < 16 << 10)
        // The host looks at some of it and sees ciphertext.
        let seen = try #require(memory.hostSnapshot(spa: context + 4096, byteCount: 4096))
        #expect(seen.filter { $0 == 0 }.count < 256)
    }

    @Test("the key is the guest's: 128 or 256 bits as its policy says, other guests have others")
    func keys() throws {
        let platform = try Platform()
        let guests = [platform.launchingGuest(asid: 1), platform.launchingGuest(asid: 2, policy: 0x30000 | 1 << 22)]
        var seen: [[UInt8]] = []
        for (index, guest) in guests.enumerated() {
            let page = try platform.preGuestPage(asid: UInt32(index + 1), gpa: 0x1000, Self.page)
            #expect(platform.processor.launchUpdate(context: guest, page: page, type: .normal) == .success)
            seen.append(try platform.memory.hostRead(page, byteCount: 4096))
        }
        #expect(seen[0] != seen[1] && seen[0] != Self.page && seen[1] != Self.page)
        #expect(platform.decommission(guests[0]) == .success)
        #expect(platform.processor.launchDigest(of: guests[0]) == nil)
    }
}
