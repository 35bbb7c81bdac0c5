// VM types and the other small numbers of the system handle.

/// The argument of `KVM_CREATE_VM` [KVM KVM_CREATE_VM]. `KVM_CAP_VM_TYPES` has bit n set when type n can be created.
public struct VMType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_X86_DEFAULT_VM`.
    public static let plain = Self(rawValue: 0)
    /// `KVM_X86_SW_PROTECTED_VM`.
    public static let softwareProtected = Self(rawValue: 1)
    /// `KVM_X86_SEV_VM`.
    public static let sev = Self(rawValue: 2)
    /// `KVM_X86_SEV_ES_VM`.
    public static let sevES = Self(rawValue: 3)
    /// `KVM_X86_SNP_VM`.
    public static let snp = Self(rawValue: 4)
    /// `KVM_X86_TDX_VM`.
    public static let tdx = Self(rawValue: 5)
}

/// Constants that belong to no structure.
public enum KVM {
    /// The only answer of `KVM_GET_API_VERSION` that a VMM accepts.
    public static let apiVersion: Int32 = 12
    /// `KVM_HC_MAP_GPA_RANGE`, the hypercall by which page state changes reach the VMM.
    public static let hypercallMapGPARange: UInt64 = 12
    /// `KVM_HC_SEND_IPI`, an IPI to many.
    public static let hypercallSendIPI: UInt64 = 10
    /// The bit of `KVM_CAP_EXIT_HYPERCALL` for ``hypercallMapGPARange``.
    public static let exitHypercallMapGPARange: UInt64 = 1 << 12
    /// The length of a page, of an RMP entry's unit and of every alignment at the seam, in bytes.
    public static let pageByteCount = 4096
}
