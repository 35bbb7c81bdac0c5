import SEVABI
import Testing
import X86Defs

/// Golden bytes: every structure against hand-made bytes, field by field.
@Suite("Structures")
struct StructureTests {
    @Test("PAGE_INFO")
    func pageInfo() {
        let info = PageInfo(
            currentDigest: LaunchDigest(.init(repeating: 0xaa)), contents: LaunchDigest(.init(repeating: 0xbb)),
            pageType: .secrets, permissions: VMPLPermissions(vmpl1: 1, vmpl2: 2, vmpl3: 3), gpa: 0x0012_3456_789a_b000)
        let expected =
            [UInt8](repeating: 0xaa, count: 48) + [UInt8](repeating: 0xbb, count: 48)
            // LENGTH, PAGE_TYPE, IMI, reserved, VMPL1…3.
            + [0x70, 0, 5, 0, 0, 1, 2, 3]
            // GPA.
            + [0x00, 0xb0, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x00]
        #expect(info.bytes.indices.map { info.bytes[$0] } == expected)
        #expect(info.gpa == 0x0012_3456_789a_b000)
        #expect(info.permissions == VMPLPermissions(vmpl1: 1, vmpl2: 2, vmpl3: 3))
        #expect(info.pageType == .secrets)
        #expect(PageInfo.vmsaGPA == 0xffff_ffff_f000)
    }

    @Test("guest policy bits")
    func policy() {
        let names: [(UInt64, (GuestPolicy) -> Bool)] = [
            (16, \.allowsSMT), (18, \.allowsMigrationAgent), (19, \.allowsDebug), (20, \.requiresSingleSocket),
            (21, \.allowsCXL), (22, \.requiresAES256), (23, \.requiresRAPLDisabled), (24, \.requiresCiphertextHiding),
            (25, \.disablesPageSwap),
        ]
        for (bit, property) in names {
            #expect(property(GuestPolicy(rawValue: 1 << bit)))
            #expect(!property(GuestPolicy(rawValue: ~(1 << bit))))
        }
        let policy = GuestPolicy(rawValue: 0x3_0137)
        #expect(policy.minimumABIMajor == 1 && policy.minimumABIMinor == 0x37)
        #expect(GuestPolicy.default.hasValidReservedBits)
        #expect(!GuestPolicy(rawValue: 0x10000).hasValidReservedBits)
        #expect(!GuestPolicy(rawValue: 0x30000 | 1 << 26).hasValidReservedBits)
        #expect(!GuestPolicy(rawValue: 0x30000 | 1 << 63).hasValidReservedBits)
    }

    @Test("RMP entry")
    func rmpEntry() {
        var entry = RMPEntry()
        #expect(entry.pageState == .hypervisor)
        entry.assigned = true
        #expect(entry.low == 1)
        entry.immutable = true
        #expect(entry.low == 5)
        entry.gpa = 0x7_ffff_ffff_f000
        #expect(entry.low == 0x0007_ffff_ffff_f005)
        entry.asid = 0x3ff
        #expect(entry.low == 0x1fff_ffff_ffff_f005)
        entry.isVMSA = true
        #expect(entry.low == 0x3fff_ffff_ffff_f005)
        entry.validated = true
        #expect(entry.low == 0x7fff_ffff_ffff_f005)
        #expect(entry.asid == 0x3ff && entry.gpa == 0x7_ffff_ffff_f000)
        entry.gpa = ~0
        #expect(entry.low == 0x7fff_ffff_ffff_f005, "other bits are not touched")
        entry.setPermissions(vmpl: 2, 0xf)
        #expect(entry.high == 0xf0000 && entry.permissions(vmpl: 2) == 0xf && entry.permissions(vmpl: 1) == 0)
        #expect(
            RMPUpdate(gpa: 0x1234_5000, assigned: true, is2MiB: true, immutable: true, asid: 0x55).bytes
                == [0x00, 0x50, 0x34, 0x12, 0, 0, 0, 0, 1, 1, 1, 0, 0x55, 0, 0, 0])
    }

    @Test("every combination of RMP bits is one page state")
    func pageStates() {
        func state(_ assigned: Bool, _ asid: UInt32, _ immutable: Bool, _ validated: Bool, _ vmsa: Bool, _ gpa: UInt64)
            -> PageState
        {
            var entry = RMPEntry()
            entry.assigned = assigned
            entry.asid = asid
            entry.immutable = immutable
            entry.validated = validated
            entry.isVMSA = vmsa
            entry.gpa = gpa
            return entry.pageState
        }
        #expect(state(false, 0, false, false, false, 0) == .hypervisor)
        #expect(state(false, 0, true, false, false, 0) == .hypervisorFixed)
        #expect(state(true, 0, false, false, false, 0) == .reclaim)
        #expect(state(true, 0, true, false, false, 0) == .firmware)
        #expect(state(true, 0, true, false, true, 0) == .context)
        #expect(state(true, 0, true, false, false, 0x1000) == .metadata)
        #expect(state(true, 1, true, false, false, 0x1000) == .preGuest)
        #expect(state(true, 1, true, true, false, 0x1000) == .preSwap)
        #expect(state(true, 1, false, false, false, 0) == .guestInvalid)
        #expect(state(true, 1, false, true, true, 0) == .guestValid)
    }

    @Test("command buffers")
    func commandBuffers() throws {
        let context = SPA(rawValue: 0x1_0203_4000)
        let start = SNPLaunchStart(
            context: context, policy: GuestPolicy(rawValue: 0xb0000), hasIMI: true, desiredTSCKHz: 0x1234,
            gosvw: Array(0x30..<0x40))
        #expect(
            start.bytes == [
                0x00, 0x40, 0x03, 0x02, 0x01, 0, 0, 0,  // GCTX_PADDR
                0x00, 0x00, 0x0b, 0, 0, 0, 0, 0,  // POLICY
                0, 0, 0, 0, 0, 0, 0, 0,  // MA_GCTX_PADDR
                2, 0, 0, 0, 0x34, 0x12, 0, 0,  // flags, DESIRED_TSC_FREQ
                0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
            ])
        #expect(SNPLaunchStart(bytes: start.bytes) == start)

        let update = SNPLaunchUpdate(
            context: context, pageType: .cpuid, address: SPA(rawValue: 0x5000), is2MiB: true, isIMIPage: true,
            permissions: VMPLPermissions(vmpl1: 0xf, vmpl2: 7, vmpl3: 1))
        #expect(
            update.bytes == [
                0x00, 0x40, 0x03, 0x02, 0x01, 0, 0, 0,
                0b1_1101, 0, 0, 0, 0, 0, 0, 0,  // page size, type 6, IMI
                0x00, 0x50, 0, 0, 0, 0, 0, 0,
                0, 0xf, 7, 1, 0, 0, 0, 0,
            ])
        #expect(SNPLaunchUpdate(bytes: update.bytes) == update)

        let finish = SNPLaunchFinish(
            context: context, idBlock: SPA(rawValue: 0x6000), idAuthentication: SPA(rawValue: 0x7000),
            usesIDBlock: true,
            usesAuthorKey: true, disablesVCEK: true, hostData: Array(0..<32))
        #expect(
            finish.bytes == [
                0x00, 0x40, 0x03, 0x02, 0x01, 0, 0, 0,
                0x00, 0x60, 0, 0, 0, 0, 0, 0,
                0x00, 0x70, 0, 0, 0, 0, 0, 0,
                7, 0, 0, 0, 0, 0, 0, 0,
            ] + Array(0..<32))
        #expect(SNPLaunchFinish(bytes: finish.bytes) == finish)

        #expect(
            SNPActivate(context: context, asid: 0x63).bytes == [0x00, 0x40, 0x03, 0x02, 0x01, 0, 0, 0, 0x63, 0, 0, 0])
        let reclaim = SNPPageReclaim(address: SPA(rawValue: 0x20_0000), is2MiB: true)
        #expect(reclaim.bytes == [1, 0, 0x20, 0, 0, 0, 0, 0])
        #expect(SNPPageReclaim(bytes: reclaim.bytes) == reclaim)
    }

    @Test("reserved bits of command buffers are seen, short buffers are not read")
    func reservedBits() throws {
        /// Sets each bit in turn and lists those that the parser calls reserved.
        func reserved(_ byteCount: Int, _ isValid: ([UInt8]) -> Bool?) -> Set<Int> {
            Set(
                (0..<(byteCount * 8)).filter { bit in
                    var bytes = [UInt8](repeating: 0, count: byteCount)
                    bytes[bit / 8] = 1 << UInt8(bit % 8)
                    return isValid(bytes) == false
                })
        }
        #expect(reserved(0x30) { SNPLaunchStart(bytes: $0)?.hasValidReservedBits } == Set((0x18 * 8 + 2)..<(0x1c * 8)))
        let update = Set((8 * 8 + 5)..<(0x10 * 8)).union((0x18 * 8)..<(0x19 * 8)).union((0x1c * 8)..<(0x20 * 8))
        #expect(reserved(0x20) { SNPLaunchUpdate(bytes: $0)?.hasValidReservedBits } == update)
        #expect(reserved(0x40) { SNPLaunchFinish(bytes: $0)?.hasValidReservedBits } == Set((0x18 * 8 + 3)..<(0x20 * 8)))
        #expect(reserved(0x40) { SNPConfig(bytes: $0)?.hasValidReservedBits } == Set((8 * 8 + 2)..<(0x40 * 8)))
        #expect(
            reserved(0x40) { SNPInitEx(bytes: $0)?.hasValidReservedBits }
                == Set(2..<64).union((16 * 8)..<(64 * 8)))
        #expect(SNPLaunchStart(bytes: [UInt8](repeating: 0, count: 0x2f)) == nil)
        #expect(SNPLaunchUpdate(bytes: [UInt8](repeating: 0, count: 0x1f)) == nil)
        #expect(SNPLaunchFinish(bytes: [UInt8](repeating: 0, count: 0x3f)) == nil)
        #expect(SNPActivate(bytes: [UInt8](repeating: 0, count: 0xb)) == nil)
        #expect(SNPConfig(bytes: []) == nil && SNPInitEx(bytes: []) == nil && SNPAddressBuffer(bytes: []) == nil)
    }

    @Test("platform and guest status")
    func status() {
        let sev = SEVPlatformStatus(
            apiMajor: 1, apiMinor: 55, state: 1, isExternallyOwned: true, isESConfigured: true, build: 29,
            guestCount: 0x102)
        #expect(sev.bytes == [1, 55, 1, 1, 1, 0, 0, 29, 2, 1, 0, 0])
        #expect(SEVPlatformStatus(bytes: sev.bytes) == sev)
        let snp = SNPPlatformStatus(
            apiMajor: 1, apiMinor: 55, state: 1, platformFlags: 3, build: 29, features: [.maskChipKey, .raplDisabled],
            guestCount: 5, currentTCB: TCBVersion(bootLoader: 4, tee: 1, snp: 24, microcode: 219),
            reportedTCB: TCBVersion(rawValue: 0))
        #expect(
            snp.bytes == [
                1, 55, 1, 3, 29, 0, 0, 0, 0x12, 0, 0, 0, 5, 0, 0, 0,
                4, 1, 0, 0, 0, 0, 24, 219, 0, 0, 0, 0, 0, 0, 0, 0,
            ])
        #expect(SNPPlatformStatus(bytes: snp.bytes) == snp)
        let guest = SNPGuestStatus(policy: .default, asid: 0x63, state: .running)
        #expect(guest.bytes == [0, 0, 3, 0, 0, 0, 0, 0, 0x63, 0, 0, 0, 2] + [UInt8](repeating: 0, count: 19))
        #expect(SNPGuestStatus(bytes: guest.bytes) == guest)
        let config = SNPConfig(
            reportedTCB: TCBVersion(rawValue: 0x1122_0000_0000_3344), masksChipID: true, masksChipKey: true)
        #expect(config.bytes == [0x44, 0x33, 0, 0, 0, 0, 0x22, 0x11, 3] + [UInt8](repeating: 0, count: 55))
        #expect(SNPConfig(bytes: config.bytes) == config)
    }

    @Test("TCB versions are compared by component")
    func tcb() {
        let base = TCBVersion(bootLoader: 4, tee: 1, snp: 24, microcode: 219)
        #expect(base.rawValue == 0xdb18_0000_0000_0104)
        #expect(base.isAtMost(base))
        #expect(!TCBVersion(bootLoader: 5, tee: 0, snp: 0, microcode: 0).isAtMost(base))
        #expect(TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 0).isAtMost(base))
        #expect(base.hasValidReservedBytes && !TCBVersion(rawValue: 1 << 16).hasValidReservedBytes)
    }

    @Test("secrets page")
    func secrets() throws {
        var page = SecretsPage(version: 3)
        page.fms = 0x00a0_0f11
        page.gosvw = Array(1...16)
        for index in 0..<4 { page.setVMPCK(index, [UInt8](repeating: UInt8(index + 1), count: 32)) }
        page.tscFactor = 0x0102_0304
        #expect(
            Array(page.bytes[0..<0x20]) == [3, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x0f, 0xa0, 0, 0, 0, 0, 0] + Array(1...16))
        #expect(page.bytes[0x20] == 1 && page.bytes[0x40] == 2 && page.bytes[0x60] == 3 && page.bytes[0x9f] == 4)
        #expect(Array(page.bytes[0x160..<0x164]) == [4, 3, 2, 1])
        #expect(page.bytes[0xa0..<0x160].allSatisfy { $0 == 0 })
        #expect(page.vmpck(3) == [UInt8](repeating: 4, count: 32))
        #expect(SecretsPage(bytes: page.bytes) == page)
        #expect(SecretsPage(bytes: []) == nil)
    }

    @Test("ID block and ID authentication")
    func idBlock() throws {
        let block = IDBlock(
            launchDigest: LaunchDigest(.init(repeating: 9)), familyID: .init(repeating: 1),
            imageID: .init(repeating: 2),
            guestSVN: 7, policy: GuestPolicy(rawValue: 0x30000))
        #expect(
            block.bytes == [UInt8](repeating: 9, count: 48) + [UInt8](repeating: 1, count: 16)
                + [UInt8](repeating: 2, count: 16) + [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0])
        #expect(IDBlock(bytes: block.bytes) == block)
        #expect(IDBlock(bytes: block.bytes + [0]) == nil)
        var authentication = IDAuthentication()
        authentication.idKey = PublicKeyField(x: [0xa1], y: [0xa2])
        authentication.idBlockSignature = SignatureField(r: [0xb1], s: [0xb2])
        authentication.authorKey = PublicKeyField(x: [0xc1], y: [0xc2])
        authentication.idKeySignature = SignatureField(r: [0xd1], s: [0xd2])
        let marks: [(Int, UInt8)] = [
            (0, 1), (4, 1), (0x40, 0xb1), (0x88, 0xb2), (0x240, 2), (0x244, 0xa1), (0x28c, 0xa2), (0x680, 0xd1),
            (0x6c8, 0xd2), (0x880, 2), (0x884, 0xc1), (0x8cc, 0xc2),
        ]
        for (offset, value) in marks {
            #expect(authentication.bytes[offset] == value, "offset \(String(offset, radix: 16))")
        }
        #expect(authentication.bytes.filter { $0 != 0 }.count == marks.count)
        #expect(authentication.idKey.x.first == 0xa1 && authentication.idKeySignature.s.first == 0xd2)
    }

    @Test("status and command numbers print their names")
    func names() {
        #expect(SEVStatus.success.description == "SUCCESS (0x00)")
        #expect(SEVStatus.policyFailure.description == "POLICY_FAILURE (0x07)")
        #expect(SEVStatus.invalidKey.description == "INVALID_KEY (0x27)")
        #expect(SEVStatus.rmpInitRequired.description == "RMP_INIT_REQUIRED (0x20)")
        #expect(SEVStatus(rawValue: 0x1e).description == "firmware status 0x1e")
        #expect(SEVStatus(rawValue: 0x1234).description == "firmware status 0x1234")
        #expect(SEVStatus.noFirmwareCall.description == "NO_FW_CALL (0xffffffff)")
        #expect(SEVCommand.snpLaunchUpdate.rawValue == 0xa1 && SEVCommand.snpPageReclaim.rawValue == 0xc7)
    }
}
