// A sequence of KVM requests that can be issued to any kernel: nothing in it is an address or a descriptor.

import KVMABI

/// How the VM is before the first step.
public struct RequestSetup: Sendable, Equatable, CustomStringConvertible {
    /// KVM_CREATE_IRQCHIP, and KVM_CREATE_PIT2 with it.
    public var hasIRQChip = false
    /// KVM_SET_CPUID2 with what both kernels have.
    public var hasCPUID = true
    /// 64-bit mode and the code to run; else as after reset.
    public var code: [UInt8]?
    public var vcpuCount = 1

    public init(hasIRQChip: Bool = false, hasCPUID: Bool = true, code: [UInt8]? = nil, vcpuCount: Int = 1) {
        self.hasIRQChip = hasIRQChip
        self.hasCPUID = hasCPUID
        self.code = code
        self.vcpuCount = vcpuCount
    }

    public var description: String {
        "VM" + (hasIRQChip ? " irqchip" : "") + " vcpus \(vcpuCount)" + (hasCPUID ? " cpuid" : "")
            + (code.map { " code " + $0.map { String(UInt16($0) + 0x100, radix: 16).dropFirst() }.joined() } ?? "")
    }
}

/// One request.
public struct RequestStep: Sendable, CustomStringConvertible {
    public enum Target: Sendable, Equatable {
        case system
        case vm
        case vcpu(Int)
    }
    /// What the bytes are before the changes.
    public enum Base: Sendable, Equatable {
        case zeros(Int)
        /// What the software kernel's GET of the same state says now: both kernels get the same bytes.
        case current
        case bytes([UInt8])
    }
    /// Some bytes that are other than in the base.
    public struct Change: Sendable, Equatable {
        public enum Kind: Sendable, Equatable {
            case set
            case xor
            /// The value is an offset into the VM's RAM; the bytes are its address.
            case pointer
        }
        public var offset: Int
        public var byteCount: Int
        public var value: UInt64
        public var kind: Kind

        public init(_ offset: Int, _ byteCount: Int, _ value: UInt64, _ kind: Kind = .set) {
            self.offset = offset
            self.byteCount = byteCount
            self.value = value
            self.kind = kind
        }
    }
    public enum Argument: Sendable, Equatable {
        case none
        case value(UInt64)
        case bytes(Base, [Change])
    }
    public var target: Target
    public var request: IoctlRequest
    public var argument: Argument
    /// KVM_RUN: with `immediate_exit`.
    public var isImmediate = false

    public init(_ target: Target, _ request: IoctlRequest, _ argument: Argument = .none, isImmediate: Bool = false) {
        self.target = target
        self.request = request
        self.argument = argument
        self.isImmediate = isImmediate
    }

    public var description: String {
        let name: String
        switch target {
        case .system: name = "kvm"
        case .vm: name = "vm"
        case .vcpu(let index): name = "vcpu\(index)"
        }
        var text = "\(name) \(request)" + (isImmediate ? " immediate" : "")
        switch argument {
        case .none: break
        case .value(let value): text += " " + hex(value)
        case .bytes(let base, let changes):
            switch base {
            case .zeros(let count): text += " zeros \(count)"
            case .current: text += " current"
            case .bytes(let bytes):
                text +=
                    " " + bytes.prefix(64).map { String(UInt16($0) + 0x100, radix: 16).dropFirst() }.joined()
                    + (bytes.count > 64 ? "…(\(bytes.count))" : "")
            }
            for change in changes {
                let sign = change.kind == .set ? "=" : change.kind == .xor ? "^=" : "=&ram+"
                text += " [\(hex(UInt64(change.offset)))/\(change.byteCount)]\(sign)\(hex(change.value))"
            }
        }
        return text
    }
}

/// A VM and what is asked of it.
public struct RequestSequence: Sendable, CustomStringConvertible {
    public var setup: RequestSetup
    public var steps: [RequestStep]

    public init(_ setup: RequestSetup, _ steps: [RequestStep]) {
        self.setup = setup
        self.steps = steps
    }

    public var description: String { ([setup.description] + steps.map(\.description)).joined(separator: "; ") }
}

extension IoctlRequest {
    /// The request that reads what this one sets.
    var reader: IoctlRequest? {
        switch self {
        case .setRegisters: .getRegisters
        case .setSpecialRegisters: .getSpecialRegisters
        case .setSpecialRegisters2: .getSpecialRegisters2
        case .setFPU: .getFPU
        case .setXSave: .getXSave
        case .setXCRs: .getXCRs
        case .setDebugRegisters: .getDebugRegisters
        case .setVCPUEvents: .getVCPUEvents
        case .setMPState: .getMPState
        case .setLAPIC: .getLAPIC
        case .setPIT2: .getPIT2
        case .setClock: .getClock
        default: nil
        }
    }

    /// Requests whose state is read at the end of a sequence.
    static let vcpuReaders: [IoctlRequest] = [
        .getRegisters, .getSpecialRegisters, .getVCPUEvents, .getDebugRegisters, .getMPState, .getXCRs, .getFPU,
    ]
}
