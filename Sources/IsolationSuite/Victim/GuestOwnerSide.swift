// The victim's owner: what it expects, and what it does about a launch that is not the expected one. It never touches the
// host's kernel; what it gets from there are values.

import Crypto
import GuestImage
import GuestOwner
import KVMABI
import LaunchMeasurement
import SEVABI

/// The owner of a victim.
///
/// Which platform it talks to is another question (`owner` verifies certificate chains): here the attacker's host is
/// genuine, and only its kernel and its VMM are not.
struct VictimOwner {
    /// The launch as the owner wants it.
    let plan: LaunchPlan

    // MARK: SEV and SEV-ES

    /// Keys for one launch on this platform.
    func session(on victim: VictimMachine) throws(Interruption) -> OwnerSession {
        guard let certificate = SEVCertificate(bytes: try victim.exportPlatform().pdh) else {
            throw .broken("SEV_PDH_CERT_EXPORT gave no certificate")
        }
        guard let key = P384PublicKey(littleEndianX: certificate.publicKey.x, y: certificate.publicKey.y) else {
            throw .broken("the platform's PDH is not a point of P-384")
        }
        var tek = randomBytes(16)
        var tik = randomBytes(16)
        guard
            let session = OwnerSession(
                pdh: key, ownerKey: .random(), policy: SEVPolicy(rawValue: UInt32(truncatingIfNeeded: plan.policy)),
                tek: SecretBytes(taking: &tek), tik: SecretBytes(taking: &tik), nonce: randomBytes(16),
                wrapIV: randomBytes(16), apiMajor: certificate.apiMajor, apiMinor: certificate.apiMinor)
        else { throw .broken("no shared secret with the platform's PDH") }
        return session
    }

    /// What the owner says about a measurement: nil when it accepts, else its refusal.
    func objection(
        to measurement: SEVMeasurement, by firmware: FirmwareVersion, in session: OwnerSession
    ) throws(Interruption) -> String? {
        do throws(OwnerError) {
            let expected = try ExpectedLaunch(plan)
            try session.check(
                OwnerMeasurement(firmware: firmware, policy: session.policy, measurement: measurement),
                against: expected)
            return nil
        } catch {
            guard error.category == .measurement else { throw .broken("the owner could not compare: \(error)") }
            return "the owner does not \(error.attempt) and releases no secret; likely cause: \(error.likelyCause)"
        }
    }

    // MARK: SNP

    /// An ID block for the wanted launch, signed by a key of the owner's.
    func signedIDBlock() throws(Interruption) -> (block: [UInt8], authentication: [UInt8]) {
        guard let digest = LaunchDigest(MeasuredLaunch(of: plan).digestBytes) else {
            throw .broken("the launch digest has not 48 bytes")
        }
        let block = IDBlock(launchDigest: digest, policy: GuestPolicy(rawValue: plan.policy)).bytes
        let key = P384PrivateKey.random()
        let signature = key.sign(block, hash: .sha384)
        var authentication = IDAuthentication()
        authentication.idKey = PublicKeyField(x: key.publicKey.littleEndianX, y: key.publicKey.littleEndianY)
        authentication.idBlockSignature = SignatureField(r: signature.r, s: signature.s)
        return (block, authentication.bytes)
    }
}

extension VictimMachine {
    /// SEV_PDH_CERT_EXPORT: the platform's Diffie-Hellman certificate, and PEK, OCA and CEK.
    func exportPlatform() throws(Interruption) -> SEVPlatformCertificates {
        var pdh = [UInt8](repeating: 0, count: SEVCertificate.byteCount)
        var chain = [UInt8](repeating: 0, count: SEVPlatformCertificates.chainByteCount)
        let outcome = withKernelAddress(ofMutable: &pdh) { (pdhAddress: UInt64) in
            withKernelAddress(ofMutable: &chain) { (chainAddress: UInt64) in
                var export = SEVUserPDHExport()
                export.certificateAddress = pdhAddress
                export.certificateByteCount = UInt32(SEVCertificate.byteCount)
                export.chainAddress = chainAddress
                export.chainByteCount = UInt32(SEVPlatformCertificates.chainByteCount)
                return deviceCommand(.pdhCertificateExport, &export)
            }
        }
        try require(outcome, "SEV_PDH_CERT_EXPORT")
        return SEVPlatformCertificates(pdh: pdh, chain: chain)
    }

    /// SEV_PLATFORM_STATUS: the firmware's version, which enters every measurement.
    func firmwareVersion() throws(Interruption) -> FirmwareVersion {
        var status = SEVUserStatus()
        try require(deviceCommand(.platformStatus, &status), "SEV_PLATFORM_STATUS")
        return FirmwareVersion(apiMajor: status.apiMajor, apiMinor: status.apiMinor, build: status.build)
    }

    /// A command on /dev/sev with its structure.
    func deviceCommand<S: KernelStructure>(_ command: SEVDeviceCommand, _ data: inout S) -> CommandOutcome {
        withKernelAddress(of: &data) { (address: UInt64) in
            var issue = SEVIssueCommand(command, data: address)
            do throws(Errno) {
                try kernel.call(sev, .sevIssueCommand, &issue)
                return .success
            } catch {
                return CommandOutcome(errno: error, status: FirmwareStatus(rawValue: issue.error))
            }
        }
    }
}
