import Testing
import VMMDevices
import VirtioTestSupport

/// What a driver must not do, done: each time the device stops with DEVICE_NEEDS_RESET and goes on after a reset.
@Suite struct VirtioHostileRingTests {
    private typealias Descriptor = VirtioDriver.Descriptor
    private static let next = VirtioDriver.flagNext
    private static let write = VirtioDriver.flagWrite
    private static let indirect = VirtioDriver.flagIndirect

    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let fault: String
        let act: @Sendable (VirtioDriver) -> Void
        var testDescription: String { name }

        init(_ name: String, _ fault: String, _ act: @escaping @Sendable (VirtioDriver) -> Void) {
            self.name = name
            self.fault = fault
            self.act = act
        }
    }

    static let cases: [Case] = [
        Case("a loop of one", "a chain longer than its queue") { driver in
            driver.store(Descriptor(0x2_0000, 1, flags: next, next: 0), at: 0)
            driver.offer(0)
        },
        Case("a loop through the whole table", "a chain longer than its queue") { driver in
            for index in 0..<16 as Range<UInt16> {
                driver.store(Descriptor(0x2_0000, 1, flags: next, next: (index + 1) % 16), at: index)
            }
            driver.offer(3)
        },
        Case("a head outside", "descriptor 16 of 16") { $0.offer(16) },
        Case("a far head", "descriptor 65535 of 16") { $0.offer(.max) },
        Case("a next outside", "descriptor 999 of 16") { driver in
            driver.store(Descriptor(0x2_0000, 1, flags: next, next: 999), at: 0)
            driver.offer(0)
        },
        Case("an available index that jumps", "available index 17, more than a queue beyond 0") { driver in
            driver.memory.store(UInt16(17), at: driver.rings[0].driverArea + 2)
        },
        Case("an available index that goes back", "available index 65535, more than a queue beyond 0") { driver in
            driver.memory.store(UInt16.max, at: driver.rings[0].driverArea + 2)
        },
        Case("a buffer beyond memory", "a buffer of 16 bytes at 0xffff8, outside shared memory") { driver in
            driver.store(Descriptor(0xf_fff8, 16), at: 0)
            driver.offer(0)
        },
        Case("a buffer that wraps", "a buffer of 16 bytes at 0xfffffffffffffff8, outside shared memory") { driver in
            driver.store(Descriptor(.max - 7, 16), at: 0)
            driver.offer(0)
        },
        Case("a private buffer", "a buffer of 4096 bytes at 0x7ff00, outside shared memory") { driver in
            driver.store(Descriptor(0x7_ff00, 4096, flags: write), at: 0)
            driver.offer(0)
        },
        Case("too many bytes", "a chain of more than 4 GiB") { driver in
            driver.store(Descriptor(0, 1 << 16, flags: next, next: 1), at: 0)
            driver.store(Descriptor(0, .max, flags: next, next: 1), at: 1)
            driver.offer(0)
        },
        Case("readable behind writable", "a readable buffer behind a writable one") { driver in
            driver.store(Descriptor(0x2_0000, 1, flags: next | write, next: 1), at: 0)
            driver.store(Descriptor(0x2_0000, 1), at: 1)
            driver.offer(0)
        },
        Case("an empty indirect table", "a malformed indirect table") { driver in
            driver.store(Descriptor(0x2_0000, 0, flags: indirect), at: 0)
            driver.offer(0)
        },
        Case("an odd indirect table", "a malformed indirect table") { driver in
            driver.store(Descriptor(0x2_0000, 17, flags: indirect), at: 0)
            driver.offer(0)
        },
        Case("an indirect table that goes on", "a malformed indirect table") { driver in
            driver.store(Descriptor(0x2_0000, 16, flags: indirect | next, next: 1), at: 0)
            driver.offer(0)
        },
        Case("a table in a table", "a malformed indirect table") { driver in
            driver.store(Descriptor(0x2_0000, 16, flags: indirect), table: 0x2_0000, index: 0)
            driver.store(Descriptor(0x2_0000, 16, flags: indirect), at: 0)
            driver.offer(0)
        },
        Case("a loop in a table", "a chain longer than its queue") { driver in
            driver.store(Descriptor(0x2_0000, 1, flags: next, next: 0), table: 0x2_0000, index: 0)
            driver.store(Descriptor(0x2_0000, 16, flags: indirect), at: 0)
            driver.offer(0)
        },
        Case("a next outside a table", "descriptor 1 of 1") { driver in
            driver.store(Descriptor(0x2_0000, 1, flags: next, next: 1), table: 0x2_0000, index: 0)
            driver.store(Descriptor(0x2_0000, 16, flags: indirect), at: 0)
            driver.offer(0)
        },
        Case("a private table", "a ring at 0x80000, outside shared memory") { driver in
            driver.store(Descriptor(0x8_0000, 16, flags: indirect), at: 0)
            driver.offer(0)
        },
        Case("a ring that becomes private", "a ring at 0x1102, outside shared memory") { driver in
            driver.memory.setPrivate(0x1000..<0x2000)
        },
        Case("a queue of three", "queue size 3") { driver in
            driver.write(0x30, 1)
            driver.write(0x44, 0)
            driver.write(0x38, 3)
            driver.write(0x44, 1)
        },
        Case("a queue of none", "queue size 0") { driver in
            driver.write(0x30, 1)
            driver.write(0x44, 0)
            driver.write(0x38, 0)
            driver.write(0x44, 1)
        },
        Case("a queue that is too large", "queue size 16") { driver in
            driver.write(0x30, 1)
            driver.write(0x44, 0)
            driver.write(0x38, 16)
            driver.write(0x44, 1)
        },
        Case("a ring that is not aligned", "a ring at 0x3008, which is not aligned") { driver in
            driver.write(0x30, 1)
            driver.write(0x44, 0)
            driver.write(0x80, 0x3008)
            driver.write(0x44, 1)
        },
        Case("a ring beyond memory", "a ring at 0xffffffff00003000, outside shared memory") { driver in
            driver.write(0x30, 1)
            driver.write(0x44, 0)
            driver.write(0x80, 0x3000)
            driver.write(0x84, .max)
            driver.write(0x44, 1)
        },
    ]

    @Test(arguments: cases) func isAFaultAndNoTrap(_ hostile: Case) {
        let memory = TestGuestMemory(byteCount: 1 << 20)
        memory.setPrivate(0x8_0000..<0x9_0000)
        let line = TestInterruptLine()
        let transport = VirtioMMIO(EchoDevice(), memory: memory) { line.set($0) }
        let driver = VirtioDriver(transport, memory: memory)
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        hostile.act(driver)
        driver.kick()
        #expect(driver.status == 15 | VirtioStatus.needsReset)
        #expect(transport.queues.statistics.faults == 1)
        #expect(transport.queues.statistics.lastFault == hostile.fault)
        #expect(driver.read(0x60) == 2, "a configuration change tells of it")
        #expect(line.isHigh)
        // The device does nothing more.
        driver.offer(0)
        driver.kick()
        #expect(transport.queues.statistics.faults == 1)
        // Until it is reset, when it is as new.
        guard hostile.name != "a ring that becomes private" else { return }
        #expect(driver.negotiate())
        #expect(!line.isHigh)
        driver.start(sizes: [16, 8])
        let request = driver.add([[1, 2, 3]], writable: [3])
        driver.kick()
        #expect(driver.answer(request) == [3, 2, 1])
    }

    @Test func indirectDescriptorsMustBeNegotiated() {
        let memory = TestGuestMemory(byteCount: 1 << 20)
        let transport = VirtioMMIO(EchoDevice(), memory: memory) { _ in }
        let driver = VirtioDriver(transport, memory: memory)
        #expect(driver.negotiate(VirtioFeatures.required))
        driver.start(sizes: [16, 8])
        driver.add([[1]], writable: [1], indirect: true)
        driver.kick()
        #expect(transport.queues.statistics.lastFault == "a malformed indirect table")
    }

    @Test func aBufferThatBecomesPrivateAfterItWasTaken() {
        let memory = TestGuestMemory(byteCount: 1 << 20)
        let device = EchoDevice(holds: true)
        let transport = VirtioMMIO(device, memory: memory) { _ in }
        let driver = VirtioDriver(transport, memory: memory)
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        let request = driver.add([[1, 2]], writable: [2])
        driver.kick()
        memory.setPrivate(request.readable[0]..<request.readable[0] + 1)
        EchoDevice.answer(device.state.withLock { $0.held[0] }, transport.queues)
        #expect(driver.status & VirtioStatus.needsReset != 0)
        #expect(driver.used().isEmpty)
    }
}
