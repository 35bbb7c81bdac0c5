// Why a guest gets nothing: what it is told, and what the owner writes down.

import Attestation
import SecretRelease

/// A refusal, with what only the owner should know.
public struct ReleaseRefusal: Error, Equatable, Sendable {
    /// For the guest: a reason and the field.
    public var refusal: SecretRefusal
    /// For the owner's log: everything that was wrong, with expected and found.
    public var causes: [String]

    init(_ reason: SecretRefusal.Reason, _ detail: String, causes: [String] = []) {
        refusal = SecretRefusal(reason, detail)
        self.causes = causes
    }

    /// - Parameter errors: At least one; the first gives the reason.
    init(_ errors: [AttestationError]) {
        refusal = SecretRefusal(Self.reason(errors[0]), errors[0].field)
        causes = errors.map(\.description)
    }

    init(_ error: AttestationError) { self.init([error]) }

    private static func reason(_ error: AttestationError) -> SecretRefusal.Reason {
        switch error.category {
        case .malformed: .malformed
        case .missing: .certificates
        case .untrusted: .untrustedRoot
        case .chain: .chain
        case .validity, .revocation: .validity
        case .signature, .binding: .signature
        case .unusablePolicy: .owner
        case .policy:
            switch error.field {
            case "MEASUREMENT": .measurement
            case "REPORT_DATA": .reportData
            case "HOST_DATA": .hostData
            case "CHIP_ID": .chip
            case let field where field.contains("TCB") || field.hasSuffix("MINOR and BUILD"): .tcb
            default: .policy
            }
        }
    }
}
