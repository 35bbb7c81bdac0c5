import MemoryController
import SEVABI
import Testing

@Suite("Page allocation")
struct AllocationTests {
    @Test("pages come in ascending order, are freed, and come again")
    func order() throws {
        let memory = try SystemMemory(byteCount: 2 << 20)
        let first = try #require(memory.allocatePages())
        #expect(first == memory.base)
        let second = try #require(memory.allocatePages(3))
        #expect(second == first + 4096)
        #expect(memory.freePages(first))
        #expect(memory.allocatePages(2) == first + 4 * 4096, "one free page is not enough for two")
        #expect(memory.allocatePages() == first)
        #expect(memory.freePages(second, 3))
        #expect(memory.freePages(first))
        #expect(memory.allocatePages(4) == first, "freed neighbours are one run")
    }

    @Test("memory ends")
    func exhaustion() throws {
        let memory = try SystemMemory(byteCount: 2 << 20)
        #expect(memory.allocatePages(513) == nil)
        #expect(memory.allocatePages(512) != nil)
        #expect(memory.allocatePages() == nil)
        #expect(memory.freePages(memory.base + 511 * 4096))
        #expect(memory.allocatePages() == memory.base + 511 * 4096)
    }

    @Test("alignment")
    func alignment() throws {
        let memory = try SystemMemory(byteCount: 6 << 20)
        let single = try #require(memory.allocatePages())
        let large = try #require(memory.allocatePages(512, alignment: 512))
        #expect(large.isLargePageAligned && large != single)
        #expect(memory.allocatePages() == single + 4096, "what alignment skipped is still free")
    }

    @Test("what must not be freed is not")
    func refusals() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try machine.guestPage()
        #expect(!memory.freePages(spa), "a guest's page")
        #expect(memory.rmpUpdate(spa, .shared) == .success)
        #expect(memory.freePages(spa))
        #expect(!memory.freePages(spa), "twice")
        #expect(!memory.freePages(.zero) && !memory.freePages(spa + 1))
        #expect(!memory.freePages(memory.base, 1 << 40))
        #expect(memory.freePages(spa, 0))
    }

    @Test("pages come back zero, for the host and for the next guest's eyes")
    func scrubbed() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try #require(memory.allocatePages(2))
        try memory.hostWrite(spa, [UInt8](repeating: 0x5a, count: 8192))
        #expect(memory.freePages(spa, 2))
        #expect(memory.allocatePages(2) == spa)
        #expect(try memory.hostRead(spa, byteCount: 8192).allSatisfy { $0 == 0 })
    }

    @Test("random allocations and frees against a simple model")
    func model() throws {
        let memory = try SystemMemory(byteCount: 2 << 20)
        var owned: [(SPA, Int)] = []
        var free = Set((0..<512).map { memory.base + UInt64($0) * 4096 })
        var seed: UInt64 = 42
        func random(_ bound: Int) -> Int {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(seed >> 33) % bound
        }
        for _ in 0..<2000 {
            if random(2) == 0 || owned.isEmpty {
                let count = 1 + random(20)
                if let spa = memory.allocatePages(count) {
                    for page in 0..<count { #expect(free.remove(spa + UInt64(page) * 4096) != nil) }
                    owned.append((spa, count))
                }
            } else {
                let (spa, count) = owned.remove(at: random(owned.count))
                #expect(memory.freePages(spa, count))
                for page in 0..<count { free.insert(spa + UInt64(page) * 4096) }
            }
        }
        for (spa, count) in owned { #expect(memory.freePages(spa, count)) }
        #expect(memory.allocatePages(512) == memory.base)
    }
}
