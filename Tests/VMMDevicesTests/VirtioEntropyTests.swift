import Testing
import VMMDevices
import VirtioTestSupport

@Suite struct VirtioEntropyTests {
    let memory = TestGuestMemory(byteCount: 1 << 20)

    private func driver(_ device: VirtioEntropy) -> VirtioDriver {
        let driver = VirtioDriver(VirtioMMIO(device, memory: memory) { _ in }, memory: memory)
        #expect(driver.read(0x08) == 4)
        #expect(driver.negotiate())
        driver.start(sizes: [64])
        return driver
    }

    @Test func buffersAreFilled() {
        let driver = driver(VirtioEntropy { count in (0..<count).map { UInt8(truncatingIfNeeded: $0 &+ 1) } })
        let request = driver.add([], writable: [3, 5])
        driver.kick()
        #expect(driver.used().map(\.written) == [8])
        #expect(driver.answer(request) == [1, 2, 3, 4, 5, 6, 7, 8])
    }

    @Test func aLargeRequestGetsAPart() {
        let driver = driver(VirtioEntropy())
        let large = driver.add([], writable: [10000])
        driver.kick()
        #expect(driver.used().map(\.written) == [4096])
        let bytes = driver.answer(large)
        // Not constant: 4096 equal bytes do not happen.
        #expect(Set(bytes.prefix(4096)).count > 100)
        #expect(bytes.dropFirst(4096).allSatisfy { $0 == 0 })
    }

    @Test func nothingToWriteIsAnAnswerOfNothing() {
        let driver = driver(VirtioEntropy())
        driver.add([[1, 2, 3]])
        driver.kick()
        #expect(driver.used().map(\.written) == [0])
    }
}
