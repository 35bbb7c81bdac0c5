// Was the guest launched as its owner wants it? If not: who says something that is not true, and about what?

import Crypto
import SEVABI

extension OwnerSession {
    /// MEASURE as the firmware must calculate it for this session [SEV 6.5.1].
    ///
    /// Firmware of API versions before 0.17 left out the leading byte and the versions.
    ///
    /// - Parameters:
    ///   - digest: The launch digest, 32 bytes.
    ///   - nonce: MNONCE, 16 bytes.
    ///   - policy: Another than the session's only to find out what went wrong.
    public func expectedMeasure(
        digest: [UInt8], firmware: FirmwareVersion, nonce: [UInt8], policy: SEVPolicy? = nil
    ) -> [UInt8] {
        var message = SEVMeasurement.message(
            apiMajor: firmware.apiMajor, apiMinor: firmware.apiMinor, build: firmware.build,
            policy: policy ?? self.policy, digest: digest, nonce: nonce)
        if firmware.predatesVersionedMACs { message.removeFirst(4) }
        return tik.withBytes { HMACSHA256.authenticate(message, key: $0) }
    }

    /// The whole of what LAUNCH_MEASURE must write for this nonce.
    public func expectedMeasurement(
        of launch: ExpectedLaunch, firmware: FirmwareVersion, nonce: [UInt8]
    ) -> SEVMeasurement {
        SEVMeasurement(
            measure: expectedMeasure(digest: launch.digest, firmware: firmware, nonce: nonce), nonce: nonce)
    }

    /// Compares a measurement with the launch that the owner wants.
    ///
    /// - Parameter more: Further alternatives to try after a mismatch, beside the plan's own.
    /// - Throws: What differs, as far as can be told: the measurement is a MAC, so only a guess that fits can be recognised.
    public func check(
        _ received: OwnerMeasurement, against launch: ExpectedLaunch, more: () -> [ExpectedLaunch.Alternative] = { [] }
    ) throws(OwnerError) {
        guard received.policy == policy else {
            throw OwnerError(
                .policy, attempt: "accept the measurement", subject: "LAUNCH_MEASURE", field: "POLICY",
                expected: "\(policy)", found: "\(received.policy), says the VMM",
                likelyCause: "the VMM launched with another policy than the session was made for",
                nextStep: "launch with the policy of the session")
        }
        let measurement = received.measurement
        let expected = expectedMeasure(digest: launch.digest, firmware: received.firmware, nonce: measurement.nonce)
        if constantTimeEqual(expected, measurement.measure) { return }

        let search = MismatchSearch(session: self, received: received, launch: launch)
        let explanation = search.explanation(more: more)
        throw OwnerError(
            .measurement, attempt: "accept the measurement", subject: "LAUNCH_MEASURE", field: "MEASURE",
            // Not the value itself: the other side may read this, and it is a MAC under the owner's key.
            expected: "the one for launch digest \(hexText(launch.digest)), firmware \(received.firmware) and policy "
                + "\(policy)",
            found: hexText(measurement.measure), likelyCause: explanation.cause, nextStep: explanation.nextStep)
    }
}

extension FirmwareVersion {
    /// Before 0.17 the MACs of MEASURE and SECRET covered less.
    var predatesVersionedMACs: Bool { apiMajor == 0 && apiMinor < 17 }
}

/// Looks for what the firmware did measure.
private struct MismatchSearch {
    let session: OwnerSession
    let received: OwnerMeasurement
    let launch: ExpectedLaunch

    struct Explanation {
        var cause: String
        var nextStep: String
    }

    /// The first guess that fits.
    func explanation(more: () -> [ExpectedLaunch.Alternative]) -> Explanation {
        if let firmware = otherFirmware() {
            return Explanation(
                cause:
                    "the host lies about its firmware: the measurement is the expected one for firmware \(firmware), "
                    + "not for \(received.firmware)",
                nextStep: "ask the platform for its version again (platform show); release nothing while they differ")
        }
        if let policy = otherPolicy(launch.digest) {
            return Explanation(
                cause: "the guest was launched with policy \(policy) instead of \(session.policy)",
                nextStep: "launch with the policy of the session; release nothing")
        }
        let alternatives = launch.alternatives() + more()
        for alternative in alternatives where fits(alternative.digest, received.firmware, session.policy) {
            return Explanation(
                cause: "the firmware measured \(alternative.label)",
                nextStep: "launch with the image and the options that the owner computed the digest from")
        }
        for alternative in alternatives {
            if let policy = otherPolicy(alternative.digest) {
                return Explanation(
                    cause: "the firmware measured \(alternative.label), with policy \(policy)",
                    nextStep: "launch with the image, the options and the policy of the owner; release nothing")
            }
        }
        let tried = alternatives.isEmpty ? "" : " and \(alternatives.count) other launches of the same files"
        return Explanation(
            cause: "another image, initrd, command line or register state than the owner's, or a session of another "
                + "launch (tried beside: other firmware versions, other policies\(tried))",
            nextStep: "compare the files on both sides byte for byte; release nothing")
    }

    private func fits(_ digest: [UInt8], _ firmware: FirmwareVersion, _ policy: SEVPolicy) -> Bool {
        constantTimeEqual(
            session.expectedMeasure(
                digest: digest, firmware: firmware, nonce: received.measurement.nonce, policy: policy),
            received.measurement.measure)
    }

    /// Every build of the API version that the host named, then every API version of the majors that exist with the build
    /// that it named.
    private func otherFirmware() -> FirmwareVersion? {
        let said = received.firmware
        let builds = (0...UInt8.max).map {
            FirmwareVersion(apiMajor: said.apiMajor, apiMinor: said.apiMinor, build: $0)
        }
        let versions = [UInt8(0), 1, said.apiMajor].flatMap { major in
            (0...UInt8.max).map { FirmwareVersion(apiMajor: major, apiMinor: $0, build: said.build) }
        }
        return (builds + versions).first { $0 != said && fits(launch.digest, $0, session.policy) }
    }

    /// Every combination of the six bits, with the session's version bounds and without.
    private func otherPolicy(_ digest: [UInt8]) -> SEVPolicy? {
        let bounds = session.policy.rawValue & 0xffff_0000
        let policies = [bounds, 0].flatMap { bound in
            (0..<UInt32(64)).map { SEVPolicy(rawValue: bound | $0) }
        }
        return policies.first { $0 != session.policy && fits(digest, received.firmware, $0) }
    }
}
