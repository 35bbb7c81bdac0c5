// Virtio devices of a machine, through the exits of a scripted kernel.

import GuestImage
import KVMABI
import SNPVMM
import Synchronization
import Testing
import VMMDevices

@Suite struct VirtioTests {
    private let kernel = ScriptedKernel()
    private static let slot = GuestAddressMap.virtioSlots

    private static func write(_ offset: UInt64, _ value: UInt64) -> ScriptedKernel.Exit {
        .init { (page) throws(Errno) in
            page.exitReason = .mmio
            page.mmio = .init(physicalAddress: slot + offset, data: value, byteCount: 4, isWrite: true)
        }
    }

    /// A guest that shares one page, puts its ring into it, and asks for eight random bytes at `buffer`.
    ///
    /// - Returns: The values of the registers that it reads: Status and InterruptStatus at the end, and the presence byte.
    private func run(_ technology: Bool, share: Bool = true, buffer: UInt64 = 0x4800) throws -> (Machine, [UInt64]) {
        let answers = AnswerList()
        var plan = samplePlan()
        if !technology { plan.regions = [plan.regions[0]] }
        let entropy = VirtioEntropy { count in (0..<count).map { UInt8(truncatingIfNeeded: $0) } }
        let machine = try launch(kernel, plan: plan, confidential: technology, devices: [entropy])
        // The last anonymous mapping is RAM, from 0 on.
        let ram = try #require(kernel.state.withLock { $0.sharedAddresses.last })
        var exits: [ScriptedKernel.Exit] = []
        if share, technology {
            exits.append(
                .init { (page) throws(Errno) in
                    page.exitReason = .hypercall
                    page.hypercall = .init(number: 12, arguments: [0x4000, 1, 0, 0, 0, 0])
                })
        }
        exits.append(
            .init { (page) throws(Errno) in
                let memory = unsafe KernelMapping(address: ram, byteCount: 1 << 20) {}
                // One descriptor, writable; available index 1.
                memory.store(buffer, at: 0x4000)
                memory.store(UInt64(8) | 2 << 32, at: 0x4008)
                memory.store(UInt16(1), at: 0x4102)
                page.exitReason = .irqWindowOpen
            })
        let writes: [(UInt64, UInt64)] = [
            (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 3), (0x70, 11), (0x30, 0), (0x38, 4), (0x80, 0x4000),
            (0x90, 0x4100), (0xa0, 0x4200), (0x44, 1), (0x70, 15), (0x50, 0),
        ]
        exits += writes.map { Self.write($0, $1) }
        for address in [Self.slot + 0x70, Self.slot + 0x60, GuestAddressMap.virtioPresence] {
            exits.append(
                .init { (page) throws(Errno) in
                    page.exitReason = .mmio
                    page.mmio = .init(
                        physicalAddress: address, byteCount: address == GuestAddressMap.virtioPresence ? 1 : 4,
                        isWrite: false)
                })
            exits.append(
                .init { (page) throws(Errno) in
                    answers.append(page.mmioData & (address == GuestAddressMap.virtioPresence ? 0xff : 0xffff_ffff))
                    page.exitReason = .irqWindowOpen
                })
        }
        exits.append(Self.write(0x64, 3))
        kernel.state.withLock { $0.exits = exits }
        guard case .powerOff = machine.run() else {
            Issue.record("no power-off")
            return (machine, [])
        }
        return (machine, answers.values)
    }

    private final class AnswerList: Sendable {
        private let list = Mutex<[UInt64]>([])
        func append(_ value: UInt64) { list.withLock { $0.append(value) } }
        var values: [UInt64] { list.withLock { $0 } }
    }

    private func ram(_ offset: Int) throws -> UInt64 {
        let address = try #require(kernel.state.withLock { $0.sharedAddresses.last })
        return unsafe KernelMapping(address: address, byteCount: 1 << 20) {}.load(at: offset)
    }

    @Test(arguments: [true, false]) func aRequestIsAnsweredAndInterrupts(confidential: Bool) throws {
        let (machine, answers) = try run(confidential)
        #expect(answers == [15, 1, 1])
        #expect(try ram(0x4800) == 0x0706_0504_0302_0100)
        // The used ring: index 1, descriptor 0, 8 bytes.
        #expect(try ram(0x4200) == 0x0000_0000_0001_0000)
        #expect(kernel.state.withLock { $0.deviceInterrupts } == ["16 1", "16 0"])
        let statistics = try #require(machine.statistics.devices.first)
        #expect(statistics.device == .entropy)
        #expect(statistics.counts.requests == 1 && statistics.counts.bytesWritten == 8)
    }

    @Test func aPrivateRingStopsTheDevice() throws {
        let (machine, answers) = try run(true, share: false)
        #expect(answers == [15 | 64, 0, 1])
        #expect(machine.statistics.devices.first?.counts.faults == 1)
        #expect(try ram(0x4200) == 0)
    }

    @Test func aPrivateBufferStopsTheDevice() throws {
        let (machine, answers) = try run(true, buffer: 0x4ffc)
        #expect(answers == [15 | 64, 2, 1])
        #expect(
            machine.statistics.devices.first?.counts.lastFault == "a buffer of 8 bytes at 0x4ffc, outside shared memory"
        )
        #expect(try ram(0x4ff8) == 0)
        #expect(try ram(0x5000) == 0)
    }

    @Test func aDeviceThatOutlivesItsMachineTouchesNothing() throws {
        let queues = try { () -> VirtioQueues in
            let device = Holder()
            var plan = samplePlan()
            plan.regions = [plan.regions[0]]
            let machine = try launch(kernel, plan: plan, confidential: false, devices: [device])
            let exits = [
                Self.write(0x70, 3), Self.write(0x24, 1), Self.write(0x20, 3), Self.write(0x70, 11),
                Self.write(0x70, 15),
            ]
            kernel.state.withLock { $0.exits = exits }
            _ = machine.run()
            let queues = try #require(device.queues.withLock { $0 })
            queues.announceConfigurationChange()
            #expect(kernel.state.withLock { $0.deviceInterrupts } == ["16 1"])
            return queues
        }()
        #expect(kernel.state.withLock { $0.deviceInterrupts } == ["16 1", "16 0"])
        queues.announceConfigurationChange()
        #expect(queues.take(0)?.queue == nil)
        #expect(kernel.state.withLock { $0.deviceInterrupts } == ["16 1", "16 0"])
    }

    private final class Holder: VirtioDevice {
        let queues = Mutex<VirtioQueues?>(nil)
        let deviceID = VirtioDeviceID.entropy
        let features: UInt64 = 0
        let queueSizes: [UInt16] = [4]
        let configuration: [UInt8] = []
        func activate(features: UInt64, queues: VirtioQueues) { self.queues.withLock { $0 = queues } }
        func notify(queue: Int, of queues: VirtioQueues) {}
        func reset() {}
    }
}
