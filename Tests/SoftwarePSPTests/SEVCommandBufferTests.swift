import SEVABI
import Testing

/// `sev_data_*` against their sizes and offsets in the kernel's header.
@Suite("SEV command buffers")
struct SEVCommandBufferTests {
    /// 0x01, 0x02, …: every byte tells its offset.
    static let ramp = (0..<80).map { UInt8($0 + 1) }

    /// Parses a ramp; what is written back has the ramp at the named fields and zeroes elsewhere.
    private func check(
        _ size: Int, _ parse: ([UInt8]) -> [UInt8]?, reserved: [Range<Int>] = [],
        location: SourceLocation = #_sourceLocation
    ) {
        var expected = Array(Self.ramp.prefix(size))
        for range in reserved { for index in range { expected[index] = 0 } }
        #expect(parse(Array(Self.ramp.prefix(size))) == expected, sourceLocation: location)
        #expect(parse(Self.ramp) == expected, "longer buffers are fine", sourceLocation: location)
        for count in 0..<size {
            #expect(parse(Array(Self.ramp.prefix(count))) == nil, sourceLocation: location)
        }
    }

    @Test("sizes and offsets")
    func layouts() {
        check(4, { SEVHandleBuffer(bytes: $0)?.bytes })
        check(20, { SEVInit(bytes: $0)?.bytes }, reserved: [4..<8])
        check(36, { SEVInitEx(bytes: $0)?.bytes }, reserved: [20..<24])
        check(12, { SEVOutputBuffer(bytes: $0)?.bytes })
        check(28, { SEVPEKCertificateImport(bytes: $0)?.bytes }, reserved: [12..<16])
        check(28, { SEVPDHCertificateExport(bytes: $0)?.bytes }, reserved: [12..<16])
        check(8, { SEVActivate(bytes: $0)?.bytes })
        check(13, { SEVGuestStatus(bytes: $0)?.bytes })
        check(36, { SEVLaunchStart(bytes: $0)?.bytes }, reserved: [20..<24])
        check(20, { SEVLaunchUpdate(bytes: $0)?.bytes }, reserved: [4..<8])
        check(20, { SEVLaunchMeasure(bytes: $0)?.bytes }, reserved: [4..<8])
        check(52, { SEVLaunchSecret(bytes: $0)?.bytes }, reserved: [4..<8, 20..<24, 36..<40])
        check(36, { SEVAttestation(bytes: $0)?.bytes }, reserved: [4..<8])
        check(28, { SEVDebug(bytes: $0)?.bytes }, reserved: [4..<8])
        check(16, { SNPVLEKLoad(bytes: $0)?.bytes }, reserved: [5..<8])
    }

    @Test("fields by name")
    func fields() {
        let start = SEVLaunchStart(
            handle: 1, policy: 2, certificateAddress: SPA(rawValue: 3), certificateByteCount: 4,
            sessionAddress: SPA(rawValue: 5), sessionByteCount: 6)
        #expect(start.bytes[0] == 1 && start.bytes[4] == 2 && start.bytes[8] == 3 && start.bytes[16] == 4)
        #expect(start.bytes[24] == 5 && start.bytes[32] == 6)
        let status = SEVGuestStatus(handle: 1, policy: 2, asid: 3, state: .running)
        #expect(status.bytes == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3])
        let secret = SEVLaunchSecret(
            handle: 1, headerAddress: SPA(rawValue: 2), guestAddress: SPA(rawValue: 3), guestByteCount: 4,
            transportAddress: SPA(rawValue: 5), transportByteCount: 6)
        #expect([0, 8, 16, 24, 32, 40, 48].map { secret.bytes[$0] } == [1, 2, 52, 3, 4, 5, 6])
        #expect(SEVCommand.launchSecret.rawValue == 0x34 && SEVCommand.debugEncrypt.rawValue == 0x61)
        #expect(SEVCommand.getID.rawValue == 0xc && SEVCommand.deactivate.rawValue == 0x22)
    }
}
