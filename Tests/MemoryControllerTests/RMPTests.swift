import MemoryController
import SEVABI
import Testing

@Suite("Reverse map table")
struct RMPTests {
    static let gpa = Machine.gpa
    static let asid = Machine.guestA

    /// An entry of every state, by the fields that make it.
    static func entry(_ state: PageState, gpa: UInt64 = gpa, asid: UInt32 = asid) -> RMPEntry {
        var entry = RMPEntry()
        entry.assigned = state != .hypervisor && state != .hypervisorFixed
        entry.immutable = [.hypervisorFixed, .firmware, .context, .metadata, .preGuest, .preSwap].contains(state)
        entry.isVMSA = state == .context
        entry.validated = state == .preSwap || state == .guestValid
        if [.preGuest, .preSwap, .guestInvalid, .guestValid].contains(state) {
            entry.asid = asid
            entry.gpa = gpa
        }
        if state == .metadata { entry.gpa = gpa }
        if entry.assigned { entry.setPermissions(vmpl: 0, VMPLPermissions.all) }
        return entry
    }

    @Test("RMPUPDATE from every state to every state the hypervisor can ask for", arguments: PageState.allCases)
    func rmpUpdate(_ state: PageState) throws {
        let memory = try Machine().memory
        let requests: [(RMPUpdate, PageState)] = [
            (.shared, .hypervisor),
            (RMPUpdate(assigned: true), .reclaim),
            (RMPUpdate(assigned: true, immutable: true), .firmware),
            (RMPUpdate(gpa: Self.gpa, assigned: true, immutable: true), .metadata),
            (RMPUpdate(gpa: Self.gpa, assigned: true, immutable: true, asid: Self.asid), .preGuest),
            (RMPUpdate(gpa: Self.gpa, assigned: true, asid: Self.asid), .guestInvalid),
        ]
        for (request, result) in requests {
            let spa = try #require(memory.allocatePages())
            memory.firmwareSetEntry(spa, Self.entry(state))
            #expect(memory.rmpEntry(spa)?.pageState == state)
            let isImmutable = Self.entry(state).immutable
            #expect(memory.rmpUpdate(spa, request) == (isImmutable ? .permission : .success))
            #expect(memory.rmpEntry(spa)?.pageState == (isImmutable ? state : result))
            #expect(memory.rmpEntry(spa)?.validated == (isImmutable && Self.entry(state).validated))
        }
    }

    @Test("RMPUPDATE refuses nonsense")
    func badInput() throws {
        let memory = try Machine().memory
        let spa = try #require(memory.allocatePages(512, alignment: 512))
        let page = RMPUpdate(gpa: Self.gpa, assigned: true, asid: Self.asid)
        #expect(memory.rmpUpdate(.zero, page) == .invalidInput)
        #expect(memory.rmpUpdate(spa + 1, page) == .invalidInput)
        #expect(memory.rmpUpdate(memory.base + memory.byteCount, page) == .invalidInput)
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: 1, assigned: true, asid: 1)) == .invalidInput)
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: 1 << 51, assigned: true, asid: 1)) == .invalidInput)
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: 0, assigned: true, asid: 1024)) == .invalidInput)
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: Self.gpa, assigned: false)) == .invalidInput)
        #expect(memory.rmpUpdate(spa, RMPUpdate(assigned: false, asid: 1)) == .invalidInput)
        #expect(memory.rmpUpdate(spa + 4096, RMPUpdate(gpa: 0, assigned: true, is2MiB: true, asid: 1)) == .invalidInput)
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: 0x1000, assigned: true, is2MiB: true, asid: 1)) == .invalidInput)
        #expect(memory.rmpEntry(spa) == RMPEntry())
        #expect(memory.rmpEntry(.zero) == nil)
    }

    @Test("2 MiB entries: cover their pages, overlap, split")
    func large() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try #require(memory.allocatePages(512, alignment: 512))
        let request = RMPUpdate(gpa: 0x40_0000, assigned: true, is2MiB: true, asid: Self.asid)
        #expect(memory.rmpUpdate(spa + 0x5000, RMPUpdate(gpa: 0, assigned: true, asid: Self.asid)) == .success)
        #expect(memory.rmpUpdate(spa, request) == .overlap)
        #expect(memory.rmpUpdate(spa + 0x5000, .shared) == .success)
        #expect(memory.rmpUpdate(spa, request) == .success)
        #expect(memory.rmpEntry(spa + 0x5000)?.gpa == 0x40_5000)
        #expect(memory.rmpEntry(spa + 0x5000)?.asid == Self.asid)
        #expect(memory.rmpUpdate(spa + 0x5000, .shared) == .overlap)
        #expect(machine.refusal(spa + 0x5000, gpa: 0x40_5000) == "notValidated")

        let validate4K = memory.pvalidate(spa + 0x5000, gpa: 0x40_5000, asid: Self.asid, is2MiB: false, validate: true)
        #expect(validate4K == .fault(.sizeMismatch), "the hypervisor must split first")
        #expect(
            memory.pvalidate(spa, gpa: 0x40_1000, asid: Self.asid, is2MiB: true, validate: true)
                == .result(.invalidInput, unchanged: false))
        #expect(
            memory.pvalidate(spa, gpa: 0x40_0000, asid: Self.asid, is2MiB: true, validate: true)
                == .result(.success, unchanged: false))
        #expect(machine.store(spa + 0x5000, gpa: 0x40_5000, 0, 7))
        #expect(machine.refusal(spa + 0x5000, gpa: 0x40_6000) == "address")

        #expect(memory.psmash(spa + 0x5000) == .invalidInput)
        #expect(memory.psmash(spa) == .success)
        #expect(memory.psmash(spa) == .permission, "already small")
        #expect(memory.rmpEntry(spa + 0x1ff000)?.gpa == 0x5f_f000)
        #expect(memory.rmpEntry(spa + 0x5000)?.validated == true)
        #expect(machine.load(spa + 0x5000, gpa: 0x40_5000)?.first == 7)
        #expect(memory.rmpUpdate(spa + 0x5000, .shared) == .success)
    }

    @Test("a guest's access in every page state", arguments: PageState.allCases)
    func guestAccess(_ state: PageState) throws {
        let machine = try Machine()
        let spa = try #require(machine.memory.allocatePages())
        machine.memory.firmwareSetEntry(spa, Self.entry(state))
        let expected: String? =
            switch state {
            case .hypervisor, .hypervisorFixed: "notAssigned"
            case .reclaim, .firmware, .context, .metadata: "owner"
            case .preGuest, .guestInvalid: "notValidated"
            case .preSwap, .guestValid: nil
            }
        for access in [GuestAccess.read, .write, .userExecute, .supervisorExecute] {
            #expect(machine.refusal(spa, access) == expected)
        }
        // Another guest and another address are noticed before anything else.
        if expected == nil || expected == "notValidated" {
            #expect(machine.refusal(spa, asid: Machine.guestB) == "owner")
            #expect(machine.refusal(spa, asid: 0) == "owner")
            #expect(machine.refusal(spa, gpa: Self.gpa + 0x1000) == "address")
            #expect(machine.refusal(spa, gpa: Self.gpa + 0xfff) == expected)
        }
        #expect(machine.refusal(.zero) == "notMemory")
    }

    @Test("PVALIDATE in every page state", arguments: PageState.allCases, [true, false])
    func pvalidate(_ state: PageState, _ validate: Bool) throws {
        let memory = try Machine().memory
        let spa = try #require(memory.allocatePages())
        let before = Self.entry(state)
        memory.firmwareSetEntry(spa, before)
        let outcome = memory.pvalidate(spa, gpa: Self.gpa, asid: Self.asid, is2MiB: false, validate: validate)
        let expected: RMPInstructionOutcome =
            switch state {
            case .hypervisor, .hypervisorFixed: .fault(.notAssigned)
            case .reclaim, .firmware, .context, .metadata: .fault(.owner)
            case .preGuest, .preSwap: .fault(.immutable)
            case .guestInvalid: .result(.success, unchanged: !validate)
            case .guestValid: .result(.success, unchanged: validate)
            }
        #expect(outcome == expected)
        let isGuest = state == .guestInvalid || state == .guestValid
        #expect(memory.rmpEntry(spa)?.validated == (isGuest ? validate : before.validated))
        #expect(
            memory.pvalidate(spa, gpa: Self.gpa, asid: Self.asid, vmpl: 1, is2MiB: false, validate: validate)
                == .generalProtection)
        if isGuest {
            #expect(
                memory.pvalidate(spa, gpa: 0, asid: Self.asid, is2MiB: true, validate: validate) == .fault(.address))
            #expect(
                memory.pvalidate(spa, gpa: 0x1000, asid: Self.asid, is2MiB: true, validate: validate)
                    == .result(.invalidInput, unchanged: false))
        }
    }

    @Test("PVALIDATE of 2 MiB on a 4 KiB entry is a size mismatch")
    func pvalidateSize() throws {
        let memory = try Machine().memory
        let spa = try #require(memory.allocatePages())
        memory.firmwareSetEntry(spa, Self.entry(.guestInvalid, gpa: 0x20_0000))
        #expect(
            memory.pvalidate(spa, gpa: 0x20_0000, asid: Self.asid, is2MiB: true, validate: true)
                == .result(.sizeMismatch, unchanged: false))
    }

    @Test("RMPADJUST: targets, permissions, VMSA")
    func rmpadjust() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try machine.guestPage()
        func adjust(_ attributes: UInt64, vmpl: Int = 0, is2MiB: Bool = false, gpa: UInt64 = Self.gpa)
            -> RMPInstructionOutcome
        {
            memory.rmpadjust(spa, gpa: gpa, asid: Self.asid, vmpl: vmpl, is2MiB: is2MiB, attributes: attributes)
        }
        let success = RMPInstructionOutcome.result(.success, unchanged: false)
        let permission = RMPInstructionOutcome.result(.permission, unchanged: false)
        let invalid = RMPInstructionOutcome.result(.invalidInput, unchanged: false)
        #expect(adjust(0) == permission, "not its own level")
        #expect(adjust(1) == success)
        #expect(adjust(4) == invalid && adjust(0x1001) == invalid && adjust(1 << 17 | 1) == invalid)
        #expect(adjust(1, is2MiB: true) == invalid, "GPA not aligned")
        #expect(adjust(1, gpa: Self.gpa + 0x1000) == .fault(.address))
        #expect(machine.refusal(spa, vmpl: 1) == "permission")
        #expect(adjust(0x0301) == success)
        #expect(machine.refusal(spa, vmpl: 1) == nil && machine.refusal(spa, vmpl: 1, .write) == nil)
        #expect(machine.refusal(spa, vmpl: 1, .userExecute) == "permission")
        #expect(machine.refusal(spa, vmpl: 2) == "permission")
        #expect(adjust(0x0402, vmpl: 1) == permission, "VMPL 1 cannot give what it does not have")
        #expect(adjust(0x0102, vmpl: 1) == success)
        #expect(adjust(0x0101, vmpl: 1) == permission)
        // VMSA pages: readable, not writable, and only VMPL 0 makes them.
        #expect(adjust(1 << 16 | 0x0102, vmpl: 1) == success)
        #expect(memory.rmpEntry(spa)?.isVMSA == false)
        #expect(adjust(1 << 16 | 1) == success)
        #expect(memory.rmpEntry(spa)?.isVMSA == true)
        #expect(machine.refusal(spa) == nil && machine.refusal(spa, .write) == "vmsaWrite")
        if case .page(_, let writable) = memory.guestPage(spa, gpa: Self.gpa, asid: Self.asid) { #expect(!writable) }
        #expect(adjust(1) == success)
        #expect(machine.refusal(spa, .write) == nil)
        // Not validated.
        #expect(
            memory.pvalidate(spa, gpa: Self.gpa, asid: Self.asid, is2MiB: false, validate: false)
                == .result(.success, unchanged: false))
        #expect(adjust(1) == .notValidated)
    }

    @Test("a VMSA is loaded and stored only as the VMSA page of its own guest")
    func vmsa() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try machine.guestPage()
        #expect(machine.store(spa, 0x178, 0x34))
        #expect(memory.loadVMSA(spa, asid: Self.asid) == nil)
        #expect(
            memory.rmpadjust(spa, gpa: Self.gpa, asid: Self.asid, is2MiB: false, attributes: 1 << 16 | 1)
                == .result(.success, unchanged: false))
        var vmsa = try #require(memory.loadVMSA(spa, asid: Self.asid))
        #expect(vmsa[VMSA.rip] & 0xff == 0x34)
        vmsa[VMSA.rip] = 0x1234_5678
        #expect(memory.storeVMSA(spa, asid: Self.asid, vmsa))
        #expect(memory.loadVMSA(spa, asid: Self.asid) == vmsa)
        #expect(memory.loadVMSA(spa, asid: Machine.guestB) == nil && !memory.storeVMSA(spa, asid: Machine.guestB, vmsa))
        #expect(memory.loadVMSA(spa + 8, asid: Self.asid) == nil && memory.loadVMSA(.zero, asid: Self.asid) == nil)
    }

    @Test("a page remapped or swapped behind the guest's back is noticed")
    func remapping() throws {
        let machine = try Machine()
        let memory = machine.memory
        let first = try machine.guestPage(gpa: 0x1000)
        let second = try machine.guestPage(gpa: 0x2000)
        #expect(machine.store(first, gpa: 0x1000, 0, 1) && machine.store(second, gpa: 0x2000, 0, 2))
        // Swapped nested mappings.
        #expect(machine.refusal(second, gpa: 0x1000) == "address")
        // Another page, assigned with the right address: not validated by the guest.
        let fake = try #require(memory.allocatePages())
        #expect(memory.rmpUpdate(fake, RMPUpdate(gpa: 0x1000, assigned: true, asid: Self.asid)) == .success)
        #expect(machine.refusal(fake, gpa: 0x1000) == "notValidated")
        // Taken away and given back: not validated any more.
        #expect(memory.rmpUpdate(first, .shared) == .success)
        #expect(machine.refusal(first, gpa: 0x1000) == "notAssigned")
        #expect(memory.rmpUpdate(first, RMPUpdate(gpa: 0x1000, assigned: true, asid: Self.asid)) == .success)
        #expect(machine.refusal(first, gpa: 0x1000) == "notValidated")
    }
}
