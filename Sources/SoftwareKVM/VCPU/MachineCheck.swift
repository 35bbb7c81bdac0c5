// Machine check banks: registers that a VMM sets up and fills; nothing of this machine ever breaks [KVM
// KVM_X86_SETUP_MCE]. A vCPU that nobody has set up has all banks, switched off, and no MCG_CTL.

import KVMABI

struct MachineCheck {
    static let bankCount = 32
    /// MCG_CTL_P and MCG_SER_P: the answer to KVM_X86_GET_MCE_CAP_SUPPORTED.
    static let supportedCapabilities: UInt64 = 1 << 8 | 1 << 24

    /// MCG_CAP: bits 7:0 banks.
    var capabilities: UInt64
    var status: UInt64 = 0
    var control: UInt64
    /// MC*i*_CTL, _STATUS, _ADDR, _MISC.
    var banks: [UInt64]

    /// As a vCPU starts.
    init() {
        capabilities = UInt64(Self.bankCount)
        control = 0
        banks = Array(repeating: 0, count: 4 * Self.bankCount)
    }

    /// Nil for what does not exist.
    init?(capabilities: UInt64) {
        let count = Int(capabilities & 0xff)
        if count == 0 || count > Self.bankCount { return nil }
        if capabilities & ~(Self.supportedCapabilities | 0xff_00ff) != 0 { return nil }
        self.capabilities = capabilities
        control = capabilities & 1 << 8 != 0 ? .max : 0
        banks = (0..<4 * count).map { $0 & 3 == 0 ? .max : 0 }
    }

    /// MCG_CTL_P.
    private var hasControl: Bool { capabilities & 1 << 8 != 0 }

    private func bankIndex(_ number: UInt32) -> Int? {
        guard number >= 0x400, number - 0x400 < banks.count else { return nil }
        return Int(number - 0x400)
    }

    /// P5_MC_ADDR and P5_MC_TYPE (0 and 1), MCG_CAP, MCG_STATUS, MCG_CTL, and the banks.
    func owns(_ number: UInt32) -> Bool { number < 2 || (0x179...0x17b).contains(number) || bankIndex(number) != nil }

    /// Nil raises #GP.
    func read(_ number: UInt32, hostInitiated: Bool) -> UInt64? {
        switch number {
        case 0, 1: 0
        case 0x179: capabilities
        case 0x17a: status
        case 0x17b: hasControl || hostInitiated ? control : nil
        default: bankIndex(number).map { banks[$0] }
        }
    }

    /// False raises #GP.
    ///
    /// - Parameter statusIsWritable: HWCR.McStatusWrEn: a guest may write other values than 0 to a bank's status.
    mutating func write(_ number: UInt32, _ value: UInt64, hostInitiated: Bool, statusIsWritable: Bool) -> Bool {
        switch number {
        case 0, 1, 0x179: return false
        case 0x17a: status = value
        case 0x17b:
            guard hasControl || hostInitiated && value == 0, value == 0 || value == .max else { return false }
            control = value
        default:
            guard let index = bankIndex(number) else { return false }
            // All of a bank is switched on or nothing; of the bits that old kernels leave out for their bugs' sake KVM makes
            // no fuss.
            if index & 3 == 0, value != 0, value | 0x401 != .max { return false }
            if !hostInitiated, index & 3 == 1, value != 0, !statusIsWritable { return false }
            banks[index] = value
        }
        return true
    }
}
