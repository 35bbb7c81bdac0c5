// AES rounds and SHA steps on vector lanes [FIPS 197, FIPS 180-4].

/// AES-NI. Tables come from the field's arithmetic, once.
enum AES {
    private struct Tables {
        var box = [256 of UInt8](repeating: 0)
        var inverse = [256 of UInt8](repeating: 0)
        /// Columns of SubBytes and MixColumns together, and of InvMixColumns alone.
        var mixed = [256 of UInt32](repeating: 0)
        var unmixed = [256 of UInt32](repeating: 0)

        init() {
            var p: UInt8 = 1, q: UInt8 = 1
            repeat {
                p ^= p &<< 1 ^ (p & 0x80 != 0 ? 0x1b : 0)  // times 3
                q ^= q &<< 1
                q ^= q &<< 2
                q ^= q &<< 4
                if q & 0x80 != 0 { q ^= 0x09 }  // divided by 3
                let x = q ^ rotated(q, 1) ^ rotated(q, 2) ^ rotated(q, 3) ^ rotated(q, 4)
                box[Int(p)] = x ^ 0x63
            } while p != 1
            box[0] = 0x63
            for i in 0..<256 { inverse[Int(box[i])] = UInt8(i) }
            for i in 0..<256 {
                let s = box[i]
                let two = times(s, 2), three = two ^ s
                mixed[i] = UInt32(two) | UInt32(s) &<< 8 | UInt32(s) &<< 16 | UInt32(three) &<< 24
                let v = UInt8(i)
                unmixed[i] =
                    UInt32(times(v, 14)) | UInt32(times(v, 9)) &<< 8 | UInt32(times(v, 13)) &<< 16
                    | UInt32(times(v, 11)) &<< 24
            }
        }
        private func rotated(_ v: UInt8, _ n: UInt8) -> UInt8 { v &<< n | v &>> (8 &- n) }
        private func times(_ v: UInt8, _ n: UInt8) -> UInt8 {
            var r: UInt8 = 0, a = v, b = n
            while b != 0 {
                if b & 1 != 0 { r ^= a }
                a = a &<< 1 ^ (a & 0x80 != 0 ? 0x1b : 0)
                b = b &>> 1
            }
            return r
        }
    }
    private static let tables = Tables()

    private static func rotatedLeft(_ v: UInt32, _ n: UInt32) -> UInt32 { v &<< n | v &>> (32 &- n) }

    private static func unmixColumn(_ c: UInt32) -> UInt32 {
        var r: UInt32 = 0
        for i: UInt32 in 0..<4 {
            let column = tables.unmixed[Int(c &>> (i &* 8) & 0xff)]
            r ^= i == 0 ? column : rotatedLeft(column, i &* 8)
        }
        return r
    }

    static func round(_ a: Vector, key: Vector, _ op: SIMDOperation) -> Vector {
        let state = bytes(a)
        let decrypts = op == .aesdec || op == .aesdeclast
        // ShiftRows takes row r of column c from column c + r, its inverse from c - r.
        var columns = Doublewords()
        for c in 0..<4 {
            var column: UInt32 = 0
            for r in 0..<4 {
                let from = state[((decrypts ? c &- r : c &+ r) & 3) &* 4 &+ r]
                switch op {
                case .aesenc:
                    let m = tables.mixed[Int(from)]
                    column ^= r == 0 ? m : rotatedLeft(m, UInt32(r) &* 8)
                case .aesenclast: column |= UInt32(tables.box[Int(from)]) &<< UInt32(r &* 8)
                default: column |= UInt32(tables.inverse[Int(from)]) &<< UInt32(r &* 8)
                }
            }
            columns[c] = op == .aesdec ? unmixColumn(column) : column
        }
        return unsafeBitCast(columns, to: Vector.self) ^ key
    }

    static func inverseMixColumns(_ a: Vector) -> Vector {
        var columns = doublewords(a)
        for c in 0..<4 { columns[c] = unmixColumn(columns[c]) }
        return unsafeBitCast(columns, to: Vector.self)
    }

    static func keyAssist(_ a: Vector, round: UInt32) -> Vector {
        let x = doublewords(a)
        func substituted(_ v: UInt32) -> UInt32 {
            (0..<4 as Range<UInt32>).reduce(0) { $0 | UInt32(tables.box[Int(v &>> ($1 &* 8) & 0xff)]) &<< ($1 &* 8) }
        }
        let s1 = substituted(x[1]), s3 = substituted(x[3])
        let r = Doublewords(s1, rotatedLeft(s1, 24) ^ round, s3, rotatedLeft(s3, 24) ^ round)
        return unsafeBitCast(r, to: Vector.self)
    }
}

/// The SHA extensions. Elements are numbered from the bottom of the register.
enum SHA {
    @inline(__always) private static func left(_ v: UInt32, _ n: UInt32) -> UInt32 { v &<< n | v &>> (32 &- n) }
    @inline(__always) private static func right(_ v: UInt32, _ n: UInt32) -> UInt32 { v &>> n | v &<< (32 &- n) }
    private static func vector(_ v: Doublewords) -> Vector { unsafeBitCast(v, to: Vector.self) }

    static func message(_ op: SIMDOperation, _ a: Vector, _ b: Vector) -> Vector {
        let x = doublewords(a), y = doublewords(b)
        switch op {
        case .sha1nexte: return vector(Doublewords(y[0], y[1], y[2], y[3] &+ left(x[3], 30)))
        case .sha1msg1: return vector(Doublewords(y[2] ^ x[0], y[3] ^ x[1], x[0] ^ x[2], x[1] ^ x[3]))
        case .sha1msg2:
            let w16 = left(x[3] ^ y[2], 1), w17 = left(x[2] ^ y[1], 1), w18 = left(x[1] ^ y[0], 1)
            return vector(Doublewords(left(x[0] ^ w16, 1), w18, w17, w16))
        case .sha256msg1:
            func sigma(_ v: UInt32) -> UInt32 { right(v, 7) ^ right(v, 18) ^ v &>> 3 }
            return vector(
                Doublewords(x[0] &+ sigma(x[1]), x[1] &+ sigma(x[2]), x[2] &+ sigma(x[3]), x[3] &+ sigma(y[0])))
        default:
            func sigma(_ v: UInt32) -> UInt32 { right(v, 17) ^ right(v, 19) ^ v &>> 10 }
            let w16 = x[0] &+ sigma(y[2]), w17 = x[1] &+ sigma(y[3])
            return vector(Doublewords(w16, w17, x[2] &+ sigma(w16), x[3] &+ sigma(w17)))
        }
    }

    static func rounds1(_ state: Vector, _ words: Vector, function: Int) -> Vector {
        let s = doublewords(state), w = doublewords(words)
        var (a, b, c, d) = (s[3], s[2], s[1], s[0])
        var e: UInt32 = 0
        let k = SIMD4<UInt32>(0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6)[function & 3]
        for i in 0..<4 {
            let f: UInt32
            switch function {
            case 0: f = b & c | ~b & d
            case 2: f = b & c | b & d | c & d
            default: f = b ^ c ^ d
            }
            // The first word already holds E.
            let t = f &+ left(a, 5) &+ w[3 &- i] &+ e &+ k
            (a, b, c, d, e) = (t, a, left(b, 30), c, d)
        }
        return vector(Doublewords(d, c, b, a))
    }

    static func rounds256(_ cdgh: Vector, _ abef: Vector, _ words: Vector) -> Vector {
        let x = doublewords(cdgh), y = doublewords(abef), w = doublewords(words)
        var (a, b, c, d) = (y[3], y[2], x[3], x[2])
        var (e, f, g, h) = (y[1], y[0], x[1], x[0])
        for i in 0..<2 {
            let choose = e & f ^ ~e & g
            let sum1 = right(e, 6) ^ right(e, 11) ^ right(e, 25)
            let majority = a & b ^ a & c ^ b & c
            let sum0 = right(a, 2) ^ right(a, 13) ^ right(a, 22)
            let t = h &+ sum1 &+ choose &+ w[i]
            (h, g, f, e, d, c, b, a) = (g, f, e, d &+ t, c, b, a, t &+ majority &+ sum0)
        }
        return vector(Doublewords(f, e, b, a))
    }
}
