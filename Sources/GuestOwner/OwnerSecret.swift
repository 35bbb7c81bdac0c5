// The packet that carries the owner's secrets into the measured guest.

import Crypto
import SEVABI

extension OwnerSession {
    /// Encrypts a secret table for LAUNCH_SECRET [SEV 6.6].
    ///
    /// The MAC binds the packet to this launch: TEK and TIK are the session's, MEASURE is what was measured.
    ///
    /// - Parameters:
    ///   - measurement: Accepted by ``check(_:against:more:)``; that is the caller's promise.
    ///   - areaByteCount: Room in the guest; 4096 at most, because KVM wants the destination inside one page.
    public func makeSecret(
        _ table: SecretTable, after measurement: SEVMeasurement, firmware: FirmwareVersion, areaByteCount: UInt64
    ) throws(OwnerError) -> SEVSecretPacket {
        let byteCount = (table.byteCount + 15) & ~15
        guard UInt64(byteCount) <= min(areaByteCount, 4096) else {
            throw OwnerError(
                .secret, attempt: "make a secret packet", subject: "the secret table", field: "length",
                expected: "at most \(min(areaByteCount, 4096)) bytes", found: "\(byteCount)",
                likelyCause: "secrets that are too long for the guest's secret area",
                nextStep: "release a key instead of what it opens")
        }
        var plaintext = table.bytes(paddedTo: 16)
        defer { wipe(&plaintext) }
        return makeSecret(plaintext: plaintext, iv: randomBytes(16), measurement: measurement, firmware: firmware)
    }

    /// With every value given: for known answers. An IV must never be used twice with one session.
    ///
    /// - Parameters:
    ///   - plaintext: 1 to 16384 bytes; a programmer error otherwise. The firmware takes multiples of 16 only.
    ///   - iv: 16 bytes.
    public func makeSecret(
        plaintext: [UInt8], iv: [UInt8], measurement: SEVMeasurement, firmware: FirmwareVersion
    ) -> SEVSecretPacket {
        precondition(
            (1...SEVSecretPacket.maximumPayloadByteCount).contains(plaintext.count), "1 to 16384 bytes of secrets")
        let ciphertext = tek.withBytes { AES128CTR.apply(key: $0, counter: iv, to: plaintext) }
        let message = SEVSecretHeader.message(
            flags: 0, iv: iv, guestByteCount: UInt32(plaintext.count), ciphertext: ciphertext,
            measure: firmware.predatesVersionedMACs ? [] : measurement.measure)
        let mac = tik.withBytes { HMACSHA256.authenticate(message, key: $0) }
        return SEVSecretPacket(header: SEVSecretHeader(iv: iv, mac: mac).bytes, payload: ciphertext)
    }
}
