// Machine check banks: registers that a VMM sets up and fills; nothing of this machine ever breaks [KVM
// KVM_X86_SETUP_MCE].

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

    /// Nil for what does not exist.
    init?(capabilities: UInt64) {
        let count = Int(capabilities & 0xff)
        if count == 0 || count > Self.bankCount { return nil }
        if capabilities & ~(Self.supportedCapabilities | 0xff_00ff) != 0 { return nil }
        self.capabilities = capabilities
        control = capabilities & 1 << 8 != 0 ? .max : 0
        banks = (0..<4 * count).map { $0 & 3 == 0 ? .max : 0 }
    }

    private func bankIndex(_ number: UInt32) -> Int? {
        guard number >= 0x400, number - 0x400 < banks.count else { return nil }
        return Int(number - 0x400)
    }

    func owns(_ number: UInt32) -> Bool { (0x179...0x17b).contains(number) || bankIndex(number) != nil }

    func read(_ number: UInt32) -> UInt64? {
        switch number {
        case 0x179: capabilities
        case 0x17a: status
        case 0x17b: capabilities & 1 << 8 != 0 ? control : nil
        default: bankIndex(number).map { banks[$0] }
        }
    }

    /// False raises #GP.
    mutating func write(_ number: UInt32, _ value: UInt64, hostInitiated: Bool) -> Bool {
        switch number {
        case 0x179: return false
        case 0x17a: status = value
        case 0x17b:
            guard capabilities & 1 << 8 != 0, value == 0 || value == .max || hostInitiated else { return false }
            control = value
        default:
            guard let index = bankIndex(number) else { return false }
            // Guests enable all of a bank or nothing, and only clear its status.
            if !hostInitiated, index & 3 == 0, value != 0, value != .max { return false }
            if !hostInitiated, index & 3 == 1, value != 0 { return false }
            banks[index] = value
        }
        return true
    }
}
