// The entropy device [virtio 5.4]: one queue of buffers to be filled.

/// virtio-rng: random bytes from the host.
///
/// A confidential guest must not trust them: the host knows them, and may have chosen them. Its kernel mixes them into
/// its pool, which harms nothing, but they are no replacement for RDRAND and RDSEED.
public final class VirtioEntropy: VirtioDevice {
    /// More than this is not given at once: the driver asks again.
    public static let maximumByteCount = 4096

    private let source: @Sendable (Int) -> [UInt8]

    /// - Parameter source: Gives as many bytes as it is asked for; nil: the host kernel's random numbers.
    public init(source: (@Sendable (Int) -> [UInt8])? = nil) {
        self.source = source ?? Self.systemBytes
    }

    public let deviceID = VirtioDeviceID.entropy
    public let features: UInt64 = 0
    public let queueSizes: [UInt16] = [64]
    public let configuration: [UInt8] = []

    public func activate(features: UInt64, queues: VirtioQueues) {}
    public func reset() {}

    public func notify(queue: Int, of queues: VirtioQueues) {
        while let request = queues.take(queue) {
            let count = Int(min(request.writableByteCount, UInt64(Self.maximumByteCount)))
            let bytes = source(count)
            guard queues.write(bytes[...], to: request, at: 0) else { return }
            queues.complete(request, written: UInt64(bytes.count))
        }
    }

    @Sendable private static func systemBytes(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 7)
        while bytes.count < count {
            let word: UInt64 = generator.next()
            for shift in stride(from: 0, to: UInt64(64), by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }
}
