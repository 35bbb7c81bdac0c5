// What is attacked: the columns of the table.

import KVMABI
import SEVABI

/// A kind of guest. The plain one is the control: every attack must succeed there, else the attack itself is broken.
public enum Subject: String, CaseIterable, Sendable {
    case plain
    case sev
    case sevES = "sev-es"
    case snp

    /// What protects the guest; nil for the control.
    public var technology: GuestTechnology? {
        switch self {
        case .plain: nil
        case .sev: .sev
        case .sevES: .sevES
        case .snp: .snp
        }
    }

    /// As AMD writes it, or "plain".
    public var displayName: String { technology?.displayName ?? "plain" }

    /// The argument of `KVM_CREATE_VM`.
    var vmType: VMType {
        switch self {
        case .plain: .plain
        case .sev: .sev
        case .sevES: .sevES
        case .snp: .snp
        }
    }

    /// The guest's memory is encrypted, so its page tables have a C-bit.
    var isEncrypted: Bool { self != .plain }
    /// The guest's registers are encrypted, so it talks through a GHCB.
    var hasProtectedState: Bool { self == .sevES || self == .snp }
    /// The guest's private memory is no memory of its VMM.
    var hasPrivateMemory: Bool { self == .snp }
}
