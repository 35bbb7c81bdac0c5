// What some instructions need before they do more than fault: frames, selectors, areas, addresses; and what keeps a loop
// short.

import CNativeJudge

extension CaseGenerator {
    /// Fits bytes and state to the instruction. `n` is its name, `bytes` may be longer than it is.
    static func tailor(_ n: InstructionName, _ bytes: inout [UInt8], _ s: inout judge_state, _ r: inout JudgeRandom) {
        let wide = n.rexW
        func setRegister(_ i: Int, _ value: UInt64) {
            withUnsafeMutableBytes(of: &s.gpr) { $0.storeBytes(of: value, toByteOffset: (i & 15) * 8, as: UInt64.self) }
        }
        func setAll(_ value: () -> UInt64) {
            for i in 0..<16 where i != 4 { setRegister(i, value()) }
        }
        func put(_ value: UInt64, _ count: Int, at offset: Int) {
            for i in 0..<count where n.opcodeIndex + offset + i < bytes.count {
                bytes[n.opcodeIndex + offset + i] = UInt8(truncatingIfNeeded: value >> UInt64(i * 8))
            }
        }
        /// Registers lead to places in the data area, `multiple` bytes apart.
        func point(_ multiple: UInt64, _ registers: [Int]) {
            for i in registers { setRegister(i, data + UInt64(r.below(Int(0x2000 / multiple))) * multiple) }
        }
        let all = Array(0..<16)
        switch (n.map, n.opcode) {
        case (0, 0xe0...0xe2):
            // Back to itself: as many rounds as it takes the judges no time.
            if Int8(bitPattern: n.modrm) < 0 { setRegister(1, tupleWord(s.gpr, 1) & 0xfff) }
        case (0, 0xa0...0xa3):
            let address = data + UInt64(r.below(0x2008))
            put(address, n.isCompatible ? 4 : 8, at: 1)
        case (0, 0x9a) where n.isCompatible, (0, 0xea) where n.isCompatible:
            if r.chance(8) { break }
            put(UInt64(JUDGE_CODE) + 0x1000 + UInt64(r.below(0x1000)), n.has66 ? 2 : 4, at: 1)
            put(UInt64(r.chance(3) ? r.pick(selectors) : r.pick([0x23, 0x33])), 2, at: n.has66 ? 3 : 5)
        case (0, 0xca), (0, 0xcb), (0, 0xcf):
            if r.chance(8) { break }
            // Sizes of the elements: 2, 4 or 8 bytes.
            let element: UInt64 = wide ? 8 : n.has66 ? 2 : 4
            s.image = wide ? Image.frames64 : Image.frames32
            setRegister(4, data + UInt64(r.below(0x1c00 / Int(element))) * element)
        case (0, 0xff) where !n.isRegister && (n.field == 3 || n.field == 5),
            (1, 0xb2) where !n.isRegister, (1, 0xb4) where !n.isRegister, (1, 0xb5) where !n.isRegister,
            (0, 0xc4) where n.isCompatible, (0, 0xc5) where n.isCompatible:
            if r.chance(8) { break }
            s.image = wide ? Image.frames64 : Image.frames32
            point(wide ? 8 : 4, all)
        case (0, 0x8e), (1, 0x00), (1, 0x02), (1, 0x03),
            (0, 0x63) where n.isCompatible:
            if n.isRegister {
                if !r.chance(4) { setAll { UInt64(r.pick(selectors)) | (r.chance(4) ? r.next() & ~0xffff : 0) } }
                if n.isCompatible { setAllNarrow(&s) }
            } else if !r.chance(4) {
                s.image = Image.selectors
            }
        case (0, 0x07) where n.isCompatible, (0, 0x17) where n.isCompatible, (0, 0x1f) where n.isCompatible, (1, 0xa1),
            (1, 0xa9):
            if !r.chance(4) { s.image = Image.selectors }
        case (1, 0xae) where !n.isRegister && [0, 1, 4, 5, 6].contains(n.field),
            (1, 0xc7) where !n.isRegister && (3...5).contains(n.field):
            // The host has components that the engine has not: they are never asked for.
            setRegister(0, r.chance(2) ? 7 : r.next() & 7)
            setRegister(2, 0)
            s.image = Image.extendedState
            let registers = [1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
            if r.chance(8) { point(16, registers) } else { point(r.chance(8) ? 64 : 1024, registers) }
        case (1, 0x01) where n.modrm == 0xfc: point(8, [0])
        case (1, 0x01) where n.modrm == 0xd1: setRegister(1, UInt64(r.below(2)))
        default: break
        }
    }

    private static func setAllNarrow(_ s: inout judge_state) {
        withUnsafeMutableBytes(of: &s.gpr) { b in
            for i in 0..<8 {
                let v = b.load(fromByteOffset: i * 8, as: UInt64.self)
                b.storeBytes(of: v & 0xffff_ffff, toByteOffset: i * 8, as: UInt64.self)
            }
        }
    }
}
