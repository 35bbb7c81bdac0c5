// PEK_CSR, PEK_CERT_IMPORT, PDH_CERT_EXPORT, GET_ID: the platform's certificates, out and in.

import MemoryController
import SEVABI

extension Firmware {
    /// PEK_CSR [SEV 5.8]: the PEK's certificate without signatures, for an owner to sign.
    ///
    /// - Returns: INVALID_PLATFORM_STATE when UNINIT; INVALID_LENGTH, with the length filled in, for less than 2084
    ///   bytes; INVALID_ADDRESS, INVALID_PAGE_STATE.
    mutating func exportSigningRequest(_ buffer: inout SEVOutputBuffer) -> SEVStatus {
        guard sevPlatformState != .uninitialized else { return .invalidPlatformState }
        guard buffer.byteCount >= UInt32(SEVCertificate.byteCount) else {
            buffer.byteCount = UInt32(SEVCertificate.byteCount)
            return .invalidLength
        }
        let status = writeOutput(signingRequest().bytes, to: buffer.address)
        if status == .success { buffer.byteCount = UInt32(SEVCertificate.byteCount) }
        return status
    }

    private mutating func signingRequest() -> SEVCertificate {
        let profile = profile
        return withIdentity { .unsigned(.pek, $0.pek.publicKey, profile) }
    }

    /// PEK_CERT_IMPORT [SEV 5.10]: somebody else owns the platform from now on.
    ///
    /// - Returns: INVALID_PLATFORM_STATE unless INIT; ALREADY_OWNED; INVALID_LENGTH unless both have 2084 bytes;
    ///   INVALID_ADDRESS; INVALID_CERTIFICATE when the OCA is not a P-384 authority or the PEK is not what PEK_CSR gave;
    ///   BAD_SIGNATURE when the OCA does not sign itself or the PEK.
    mutating func importCertificates(_ buffer: SEVPEKCertificateImport) -> SEVStatus {
        guard sevPlatformState == .initialized else { return .invalidPlatformState }
        guard withIdentity({ !$0.isExternallyOwned }) else { return .alreadyOwned }
        let length = UInt32(SEVCertificate.byteCount)
        guard buffer.pekByteCount == length, buffer.ocaByteCount == length else { return .invalidLength }
        guard let pek = certificate(at: buffer.pekAddress), let oca = certificate(at: buffer.ocaAddress) else {
            return .invalidAddress
        }
        guard oca.isOwnerAuthority, let key = oca.p384Key, pek.signedBytes == signingRequest().signedBytes else {
            return .invalidCertificate
        }
        guard oca.isSigned(by: key, usage: .oca), pek.isSigned(by: key, usage: .oca) else { return .badSignature }
        return changeIdentity { identity, _ in
            identity.oca = nil
            identity.imported = .init(oca: oca, pek: pek)
        }
    }

    /// PDH_CERT_EXPORT [SEV 5.12]: what a guest owner checks and makes a session for.
    ///
    /// - Returns: INVALID_PLATFORM_STATE when UNINIT; INVALID_LENGTH, with both lengths filled in, when one is too
    ///   short; INVALID_ADDRESS, INVALID_PAGE_STATE. A refusal writes nothing.
    mutating func exportCertificates(_ buffer: inout SEVPDHCertificateExport) -> SEVStatus {
        guard sevPlatformState != .uninitialized else { return .invalidPlatformState }
        let pdhLength = UInt32(SEVCertificate.byteCount)
        let chainLength = UInt32(SEVPlatformCertificates.chainByteCount)
        guard buffer.pdhByteCount >= pdhLength, buffer.chainByteCount >= chainLength else {
            buffer.pdhByteCount = pdhLength
            buffer.chainByteCount = chainLength
            return .invalidLength
        }
        for (address, length) in [(buffer.pdhAddress, pdhLength), (buffer.chainAddress, chainLength)] {
            let status = outputStatus(address, byteCount: Int(length))
            guard status == .success else { return status }
        }
        let certificates = certificates()
        _ = memory.firmwareWrite(buffer.pdhAddress, certificates.pdh.bytes)
        _ = memory.firmwareWrite(buffer.chainAddress, certificates.chain)
        buffer.pdhByteCount = pdhLength
        buffer.chainByteCount = chainLength
        return .success
    }

    /// GET_ID [SEV 5.13]: 64 bytes per socket, in any platform state.
    ///
    /// - Returns: INVALID_LENGTH, with the length filled in; INVALID_ADDRESS, INVALID_PAGE_STATE.
    mutating func identify(_ buffer: inout SEVOutputBuffer) -> SEVStatus {
        let profile = profile
        let bytes = withIdentity { identity in
            (0..<profile.socketCount).flatMap { identity.chipID(socket: $0, of: profile.product) }
        }
        guard Int(buffer.byteCount) >= bytes.count else {
            buffer.byteCount = UInt32(truncatingIfNeeded: bytes.count)
            return .invalidLength
        }
        let status = writeOutput(bytes, to: buffer.address)
        if status == .success { buffer.byteCount = UInt32(truncatingIfNeeded: bytes.count) }
        return status
    }

    /// A certificate in memory; nil outside of it.
    func certificate(at spa: SPA) -> SEVCertificate? {
        memory.firmwareRead(spa, byteCount: SEVCertificate.byteCount).flatMap { SEVCertificate(bytes: $0) }
    }
}
