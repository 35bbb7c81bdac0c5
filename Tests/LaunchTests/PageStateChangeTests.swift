// Page state changes in the GHCB: merging, progress, and every way to be malformed [GHCB 4.1.6].

import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct PageStateChangeTests {
    private static let buffer = 0x1800

    private func send(_ guest: GHCBGuest, current: UInt16 = 0, end: UInt16, _ entries: [PageStateChangeEntry])
        -> RunStep
    {
        var ghcb = GHCB()
        ghcb[.exitCode] = GHCBEvent.pageStateChange.rawValue
        ghcb[.exitInfo1] = 0
        ghcb[.exitInfo2] = 0
        ghcb[.scratch] = UInt64(Self.buffer)
        var bytes = PageStateChangeHeader(currentEntry: current, endEntry: end).bytes
        for entry in entries { bytes += entry.rawValue.kernelBytes }
        ghcb[0x800..<0x800 + bytes.count] = bytes
        return guest.vmgexit(ghcb)
    }

    private func currentEntry(_ guest: GHCBGuest) -> UInt16 { guest.page.load(at: Self.buffer) }

    private func entry(_ guest: GHCBGuest, _ index: Int) -> PageStateChangeEntry {
        PageStateChangeEntry(rawValue: guest.page.load(at: Self.buffer + 8 + 8 * index))
    }

    @Test func adjacentEntriesAreOneExit() throws {
        let guest = try GHCBGuest()
        let entries = [
            PageStateChangeEntry(frame: 0x20, operation: .makeShared),
            PageStateChangeEntry(frame: 0x21, operation: .makeShared),
            PageStateChangeEntry(frame: 0x22, operation: .makeShared),
            PageStateChangeEntry(frame: 0x30, operation: .makeShared),
            PageStateChangeEntry(frame: 0x31, operation: .makePrivate),
        ]
        #expect(send(guest, end: 4, entries) == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[0] == 0x20000)
        #expect(guest.runPage.hypercall.arguments[1] == 3)
        #expect(guest.runPage.hypercall.arguments[2] == 0)
        #expect(guest.vcpu.complete() == .exit(.hypercall))
        #expect(currentEntry(guest) == 3)
        #expect(entry(guest, 2).currentPage == 1)
        #expect(guest.runPage.hypercall.arguments[0] == 0x30000)
        #expect(guest.runPage.hypercall.arguments[1] == 1)
        #expect(guest.vcpu.complete() == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[2] == 0x10)
        #expect(guest.vcpu.complete() == .resume)
        #expect(currentEntry(guest) == 5)
        #expect(guest.ghcb[.exitInfo1] == 0)
        #expect(guest.ghcb[.exitInfo2] == 0)
    }

    @Test func as253Entries() throws {
        let guest = try GHCBGuest()
        let entries = (0..<253).map { PageStateChangeEntry(frame: 0x20 + UInt64($0), operation: .makeShared) }
        #expect(send(guest, end: 252, entries) == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[1] == 253)
        #expect(guest.vcpu.complete() == .resume)
        #expect(currentEntry(guest) == 253)
    }

    @Test func largePages() throws {
        let guest = try GHCBGuest()
        let entries = [
            PageStateChangeEntry(frame: 0x200, operation: .makePrivate, is2MiB: true),
            PageStateChangeEntry(frame: 0x400, operation: .makePrivate, is2MiB: true),
            PageStateChangeEntry(frame: 0x600, operation: .makePrivate),
        ]
        #expect(send(guest, end: 2, entries) == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[1] == 1024)
        #expect(guest.runPage.hypercall.arguments[2] == 0x11)
        #expect(guest.vcpu.complete() == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[0] == 0x60_0000)
        #expect(guest.vcpu.complete() == .resume)
        #expect(entry(guest, 1).currentPage == 512)
        // Half done: the rest goes in 4 KiB pages, and is not joined with its neighbour.
        let half = [
            PageStateChangeEntry(frame: 0x200, operation: .makePrivate, is2MiB: true, currentPage: 500),
            PageStateChangeEntry(frame: 0x400, operation: .makePrivate, is2MiB: true),
        ]
        #expect(send(guest, end: 1, half) == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[0] == (0x200 + 500) << 12)
        #expect(guest.runPage.hypercall.arguments[1] == 12)
        #expect(guest.vcpu.complete() == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[1] == 512)
        #expect(guest.vcpu.complete() == .resume)
    }

    @Test func refusalByTheVMM() throws {
        let guest = try GHCBGuest()
        let entries = [PageStateChangeEntry(frame: 0x20, operation: .makeShared)]
        #expect(send(guest, end: 0, entries) == .exit(.hypercall))
        guest.runPage.hypercallResult = 22
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0x100_0000_0000)
        #expect(currentEntry(guest) == 0)
    }

    @Test func malformed() throws {
        let guest = try GHCBGuest()
        let good = PageStateChangeEntry(frame: 0x20, operation: .makeShared)
        for end: UInt16 in [253, 254, 0xffff] {
            #expect(send(guest, end: end, [good]) == .resume)
            #expect(guest.ghcb[.exitInfo2] == 0x1_0000_0001)
        }
        for bad in [
            PageStateChangeEntry(frame: 0x201, operation: .makeShared, is2MiB: true),
            PageStateChangeEntry(frame: 0x20, operation: .makeShared, currentPage: 2),
            PageStateChangeEntry(frame: 0x200, operation: .makeShared, is2MiB: true, currentPage: 513),
        ] {
            #expect(send(guest, end: 0, [bad]) == .resume)
            #expect(guest.ghcb[.exitInfo2] == 0x1_0000_0002)
        }
        // Already done, already past the end, and operations that are hints.
        #expect(
            send(guest, end: 0, [PageStateChangeEntry(frame: 1, operation: .makeShared, currentPage: 1)]) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0)
        #expect(currentEntry(guest) == 1)
        #expect(send(guest, current: 7, end: 3, [good]) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0)
        #expect(send(guest, end: 0, [PageStateChangeEntry(frame: 0x200, operation: .smash, is2MiB: true)]) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0)
        #expect(currentEntry(guest) == 1)
    }

    @Test func structureCutOffByTheBuffer() throws {
        let guest = try GHCBGuest()
        // The header fits, its entries would run out of the shared buffer.
        let step = guest.event(.pageStateChange) {
            $0[.scratch] = 0x1fe0
            $0[0xfe0..<0xfe8] = PageStateChangeHeader(currentEntry: 0, endEntry: 100).bytes
        }
        #expect(step == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0x1_0000_0001)
    }
}
