// Bytes of answers that two kernels need not share: time, and what a kernel says of its machine. Each with its reason.

import KVMABI

/// Bytes that are not compared.
public struct IgnoredField: Sendable {
    public var request: IoctlRequest
    public var range: Range<Int>
    public var reason: String

    public static let all: [IgnoredField] = [
        IgnoredField(request: .getClock, range: 0..<48, reason: "nanoseconds, real time and TSC of the moment"),
        IgnoredField(request: .getPIT2, range: 16..<24, reason: "when channel 0 was loaded, on the host's clock"),
        IgnoredField(request: .getPIT2, range: 40..<48, reason: "when channel 1 was loaded, on the host's clock"),
        IgnoredField(request: .getPIT2, range: 64..<72, reason: "when channel 2 was loaded, on the host's clock"),
        IgnoredField(
            request: .getLAPIC, range: 0xa0..<0xa4,
            reason: "the processor priority: KVM counts the vectors in service only after it has computed it"),
        IgnoredField(
            request: .getXSave, range: 0x1c..<0x20,
            reason: "the mask of MXCSR: a real kernel keeps what was set until the vCPU runs"),
        IgnoredField(request: .getXSave, range: 0x1d0..<0x1d8, reason: "the components that the host has"),
        IgnoredField(request: .getLAPIC, range: 0x390..<0x394, reason: "the timer's current count"),
    ]

    static func mask(_ bytes: [UInt8], _ request: IoctlRequest, _ setup: RequestSetup) -> [UInt8] {
        var bytes = bytes
        for field in all where field.request == request {
            for at in field.range where bytes.indices.contains(at) { bytes[at] = 0 }
        }
        return bytes
    }
}
