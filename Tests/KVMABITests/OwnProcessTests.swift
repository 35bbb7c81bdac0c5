// What is asked of the host for this process itself: pages, nodes, processors.

import Glibc
import KVMABI
import TestSupport
import Testing

private func refusal(_ body: () throws(Errno) -> Void) -> Errno? {
    do throws(Errno) { try body() } catch { return error }
    return nil
}

@Suite struct OwnProcessTests {
    /// KiB of a mapping that are resident; nil where the host does not say.
    private func residentKiB(of mapping: KernelMapping) -> Int? {
        var isOurs = false
        for line in String(decoding: readFile("/proc/self/smaps") ?? [], as: UTF8.self).split(separator: "\n") {
            if let dash = line.firstIndex(of: "-"), let start = UInt64(line[..<dash], radix: 16),
                let space = line.firstIndex(of: " "),
                let end = UInt64(line[line.index(after: dash)..<space], radix: 16)
            {
                isOurs = start <= mapping.address && mapping.address < end
            } else if isOurs, line.hasPrefix("Rss:") {
                return Int(line.filter(\.isNumber))
            }
        }
        return nil
    }

    /// Pages come with the call, and keep what was in them. More threads than pieces are no harm.
    @Test(arguments: [1, 3, 200]) func populatedMemoryIsThere(_ threadCount: Int) throws {
        let mapping = try KernelMapping.anonymous(byteCount: 32 << 20)
        mapping.store(UInt64(0x1122_3344), at: 5 << 20)
        let before = try #require(residentKiB(of: mapping))
        #expect(before < 16 << 10)
        try mapping.populate(offset: 0, byteCount: 32 << 20, threadCount: threadCount)
        // The kernel may have joined it with a neighbour, which is resident or not.
        let after = try #require(residentKiB(of: mapping))
        #expect(after >= 32 << 10)
        #expect(mapping.load(at: 5 << 20, as: UInt64.self) == 0x1122_3344)
        #expect(mapping.load(at: 6 << 20, as: UInt64.self) == 0)
    }

    /// Node 0 is there wherever there is NUMA; one that is not there is refused.
    @Test func memoryIsBoundToANode() throws {
        let mapping = try KernelMapping.anonymous(byteCount: 1 << 20)
        do throws(Errno) { try mapping.bind(toNode: 0) } catch {
            #expect(error == .ENOSYS)
            return
        }
        for node: UInt32 in [1023, 1024, .max] {
            #expect(refusal { () throws(Errno) in try mapping.bind(toNode: node) } == .EINVAL)
            #expect(refusal { () throws(Errno) in try OwnProcess.bindMemory(toNode: node) } == .EINVAL)
        }
        try mapping.populate(offset: 0, byteCount: 1 << 20, threadCount: 2)
    }

    @Test func aThreadRunsWhereItIsPut() throws {
        let all = try OwnProcess.processors()
        let last = try #require(all.last)
        try OwnProcess.run(on: [last])
        let one = try OwnProcess.processors()
        #expect(one == [last])
        // One that is there is enough, none is not.
        try OwnProcess.run(on: [last, OwnProcess.processorLimit - 1])
        let same = try OwnProcess.processors()
        #expect(same == [last])
        #expect(refusal { () throws(Errno) in try OwnProcess.run(on: []) } == .EINVAL)
        try OwnProcess.run(on: all)
        let again = try OwnProcess.processors()
        #expect(again == all)
    }

    @Test func theLimitOnLockedMemoryIsTheHardOne() {
        let limit = OwnProcess.raiseMemoryLockLimit()
        var now = rlimit()
        #expect(getrlimit(__rlimit_resource_t(8), &now) == 0)
        #expect(now.rlim_cur == now.rlim_max)
        #expect(limit ?? .max == UInt64(now.rlim_cur))
    }
}
