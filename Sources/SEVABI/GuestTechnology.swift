// Which of AMD's three technologies protects a guest.

/// SEV, SEV-ES or SEV-SNP [APM2 15.34, 15.35, 15.36]. A plain guest has none: `GuestTechnology?` is nil.
public enum GuestTechnology: String, CaseIterable, Sendable {
    /// Memory encryption.
    case sev
    /// Memory encryption and encrypted register state.
    case sevES = "sev-es"
    /// Both, and the integrity of memory.
    case snp

    /// As AMD writes it: `SEV`, `SEV-ES`, `SEV-SNP`.
    public var displayName: String {
        switch self {
        case .sev: "SEV"
        case .sevES: "SEV-ES"
        case .snp: "SEV-SNP"
        }
    }

    /// The guest's registers are encrypted: it needs a VMSA and a GHCB.
    public var encryptsState: Bool { self != .sev }
}
