// Predecoded blocks: found by linear address and host page, linked to each other, forgotten when their bytes change.
//
//   arena:  header uop uop uop … header uop uop …       a header record precedes each block's first uop
//   hash:   (rip, host page) → block                    survives TLB flushes: same bytes, same block
//   jumps:  rip → first uop                             valid in one TLB generation and privilege
//
// A block never crosses a page, but for the one whose only instruction does. Blocks live until their page's bytes
// change; then their first uop becomes `stale`, and `forward` once there is a successor.

import CX86State
import X86Defs

struct Block {
    var rip: UInt64
    /// The mode it was decoded for (``DecodeContext``).
    var context: UInt32
    var page: UInt
    /// The second page of a page-crossing instruction, or 0.
    var secondPage: UInt
    var first: UnsafeMutablePointer<x86_uop>
    var nextInHash: Int32
    var nextInPage: Int32
    /// The next block of the second page's list.
    var nextInSecondPage: Int32
    var live: Bool
}

/// A set of host pages, open addressing; slow paths only, but many of them.
struct PageTable {
    private var keys: [UInt]
    private var values: [Int32]
    private(set) var count = 0

    init(capacity: Int = 4096) {
        keys = Array(repeating: 0, count: capacity)
        values = Array(repeating: -1, count: capacity)
    }

    private func slot(_ page: UInt) -> Int {
        let mask = keys.count &- 1
        var i = Int(truncatingIfNeeded: (page &>> 12) &* 0x9e37_79b9_7f4a_7c15 &>> 20) & mask
        while keys[i] != 0 && keys[i] != page { i = (i &+ 1) & mask }
        return i
    }

    /// The head of the page's block list, -1 if it has no code.
    subscript(page: UInt) -> Int32 {
        get {
            let i = slot(page)
            return keys[i] == page ? values[i] : -1
        }
        set {
            let i = slot(page)
            if keys[i] == 0 {
                keys[i] = page
                count &+= 1
            }
            values[i] = newValue
            if count &* 2 > keys.count { grow() }
        }
    }

    func contains(_ page: UInt) -> Bool { self[page] >= 0 }

    private mutating func grow() {
        let old = (keys, values)
        self = PageTable(capacity: keys.count &* 2)
        for (k, v) in zip(old.0, old.1) where k != 0 && v >= 0 { self[k] = v }
    }
}

extension Processor {
    static let arenaCapacity = 180_224  // uops: 5.5 MiB; a Linux boot decodes four to five times as many
    static let blockHashSize = 1 << 15

    private func hash(_ rip: UInt64) -> Int {
        Int(truncatingIfNeeded: (rip ^ (rip &>> 15)) & UInt64(Self.blockHashSize - 1))
    }

    /// The block at `rip`, decoding it if need be. nil: an exception or exit has been prepared.
    func findBlock(_ rip: UInt64) -> Block? {
        guard let page = executablePage(rip, at: rip) else { return nil }
        var i = blockHash[hash(rip)]
        while i >= 0 {
            let b = blocks[Int(i)]
            if b.rip == rip && b.page == page && b.context == s.pointee.context && b.live {
                if b.secondPage == 0 { return b }
                guard let second = executablePage(((rip | 0xfff) &+ 1) & s.pointee.rip_mask, at: rip) else {
                    return nil
                }
                if b.secondPage == second { return b }
            }
            i = b.nextInHash
        }
        return translate(rip, page)
    }

    /// The host page behind an instruction address, through a small cache of its own (fetches are always encrypted).
    func executablePage(_ linear: UInt64, at rip: UInt64) -> UInt? {
        let s = self.s
        let user = s.pointee.cpl == 3
        let tag = (linear & ~0xfff) | (user ? 1 : 0) | 2
        let slot = fetchCache + Int((linear &>> 12) & 255)
        if slot.pointee.tag == tag { return UInt(slot.pointee.page) }
        guard isCanonical(linear) else {
            prepareException(13, error: 0, at: rip)
            return nil
        }
        guard let page = walk(linear, .execute, user: user, at: rip), let found = hostPage(page, .execute, at: rip),
            case .memory(let host, _) = found
        else { return nil }
        if cBitMask == 0 { checkCodePage(UInt(bitPattern: host)) }
        slot.pointee = x86_fetch_entry(tag: tag, page: UInt64(UInt(bitPattern: host)))
        return UInt(bitPattern: host)
    }

    /// Forgets a page's blocks if its bytes are no longer those that were decoded. Near links stay inside a page, and
    /// every way into a page after ``hostMemoryMayHaveChanged()`` leads through here first.
    private func checkCodePage(_ page: UInt) {
        guard codePages.contains(page), let check = codePageChecks[page], check.epoch != codeEpoch else { return }
        if check.hash == Self.hashPage(page) {
            codePageChecks[page]?.epoch = codeEpoch
        } else {
            forgetCodePage(page)
        }
    }

    /// Four independent multiply-xor lanes over the page's quadwords.
    static func hashPage(_ page: UInt) -> UInt64 {
        guard let p = UnsafePointer<UInt64>(bitPattern: page) else { return 0 }
        var lanes: (UInt64, UInt64, UInt64, UInt64) = (1, 2, 3, 4)
        var i = 0
        while i < 512 {
            lanes.0 = (lanes.0 ^ p[i]) &* 0x9e37_79b9_7f4a_7c15
            lanes.1 = (lanes.1 ^ p[i &+ 1]) &* 0xc2b2_ae3d_27d4_eb4f
            lanes.2 = (lanes.2 ^ p[i &+ 2]) &* 0x1656_67b1_9e37_79f9
            lanes.3 = (lanes.3 ^ p[i &+ 3]) &* 0x27d4_eb2f_1656_67c5
            lanes.0 ^= lanes.0 &>> 29
            lanes.1 ^= lanes.1 &>> 31
            lanes.2 ^= lanes.2 &>> 30
            lanes.3 ^= lanes.3 &>> 28
            i &+= 4
        }
        return lanes.0 ^ (lanes.1 &<< 1) ^ (lanes.2 &<< 2) ^ (lanes.3 &<< 3)
    }

    /// Is the instruction of `ip` (in the running block) on this host page?
    func runningInside(_ page: UInt, _ ip: IP) -> Bool {
        let start = s.pointee.rip
        let slots = [start, nextInstruction(s, ip) &- 1]
        for a in slots {
            let slot = fetchCache + Int((a &>> 12) & 255)
            // Unknown: be careful.
            if slot.pointee.tag & ~3 != a & ~0xfff || slot.pointee.page == UInt64(page) { return true }
        }
        return false
    }

    /// Nobody writes to the page while it is decoded: its writers have been sent the slow way, or do not run.
    func mayDecode(_ page: UInt) -> Bool { !othersRun || isCodePage(page) }

    private func translate(_ rip: UInt64, _ page: UInt) -> Block? {
        if arenaUsed &+ 700 > Self.arenaCapacity { forgetAllCode() }
        guard mayDecode(page) else { return prepareAlone(at: rip, toDecode: true) }
        guard let block = decodeBlock(rip, page) else { return nil }
        return block
    }

    /// Enters a decoded block into the tables. Stores to its pages take the slow path from now on.
    func register(_ block: Block) {
        let index = Int32(truncatingIfNeeded: blocks.count)
        var b = block
        let h = hash(b.rip)
        b.nextInHash = blockHash[h]
        blockHash[h] = index
        b.nextInPage = codePages[b.page]
        if b.nextInPage < 0 {
            takeWriteTags(b.page)
            if cBitMask == 0 { codePageChecks[b.page] = (Self.hashPage(b.page), codeEpoch) }
        }
        codePages[b.page] = index
        if b.secondPage != 0 {
            b.nextInSecondPage = codePages[b.secondPage]
            if b.nextInSecondPage < 0 {
                takeWriteTags(b.secondPage)
                if cBitMask == 0 { codePageChecks[b.secondPage] = (Self.hashPage(b.secondPage), codeEpoch) }
            }
            codePages[b.secondPage] = index
        }
        blocks.append(b)
        if let old = staleBlocks.removeValue(forKey: BlockKey(rip: b.rip, page: b.page, context: b.context)) {
            old.pointee.fn = h_forward
            old.pointee.imm = UInt64(UInt(bitPattern: b.first))
        }
    }

    func dropWriteTags(_ page: UInt) {
        for table in tables {
            for i in 0..<Int(X86_TLB_SIZE) {
                let e = table + i
                if e.pointee.write != 1, UInt(truncatingIfNeeded: e.pointee.write &+ e.pointee.addend) == page {
                    e.pointee.write = 1
                }
            }
        }
    }

    /// The page's bytes are about to change: its blocks die.
    func forgetCodePage(_ page: UInt) {
        codeForgotten = true
        var i = codePages[page]
        while i >= 0 {
            let b = blocks[Int(i)]
            if b.live {
                blocks[Int(i)].live = false
                b.first.pointee.fn = h_stale
                UnsafeMutableRawPointer(b.first - 1).storeBytes(of: 0, toByteOffset: 8, as: UInt64.self)
                staleBlocks[BlockKey(rip: b.rip, page: b.page, context: b.context)] = b.first
            }
            i = b.page == page ? b.nextInPage : b.nextInSecondPage
        }
        codePages[page] = -1
        // Links into the page are looked at again, and lead to the blocks that follow these.
        bumpGeneration()
    }

    /// The arena is full (or everything may have changed): start over.
    func forgetAllCode() {
        arenaUsed = 0
        blocks.removeAll(keepingCapacity: true)
        staleBlocks.removeAll()
        codePages = PageTable()
        codePageChecks.removeAll()
        for i in 0..<Self.blockHashSize { blockHash[i] = -1 }
        s.pointee.link = nil
        flushJumps()
        bumpGeneration()
    }

    /// Whatever has been decoded counts no more: any of guest memory may have changed.
    public func forgetAllDecodedCode() {
        forgetAllCode()
    }

    /// Makes every jump-cache entry and far link invalid.
    func bumpGeneration() {
        s.pointee.generation &+= 1
        if s.pointee.generation & 0x3fff == 0 {
            // The part that is mixed into the keys wraps: empty the table itself.
            if s.pointee.generation == 0 {
                s.pointee.generation = 1
                forgetAllCode()
            }
            flushJumps()
        } else if canonicalShift != 16 {
            // Addresses have too few spare bits to tell generations apart.
            flushJumps()
        }
        updateJumpKey()
    }

    func flushJumps() {
        for i in 0..<Int(X86_JUMP_SIZE) { s.pointee.jumps[i] = x86_jump_entry(key: 1, target: nil) }
    }

    /// The table of explicit supervisor accesses.
    var supervisorTable: UnsafeMutablePointer<x86_tlb_entry> {
        s.pointee.cr4 & CR4.smap != 0 && s.pointee.system_flags & RFLAGS.ac != 0 ? openTLB : supervisorTLB
    }

    /// Canonical addresses have 17 equal top bits: generation and privilege go there, and whether the address has only
    /// 32 bits: then the mode goes into the other ones.
    func updateJumpKey() {
        let user: UInt64 = s.pointee.cpl == 3 ? 1 : 0
        s.pointee.jump_key =
            (UInt64(s.pointee.generation & 0x3fff) &<< 48) | (user &<< 63) | (UInt64(s.pointee.legacy) &<< 62)
            | (UInt64(s.pointee.context) &<< 32)
        s.pointee.tlb = alignmentChecking ? emptyTLB : user != 0 ? userTLB : supervisorTable
    }
}

struct BlockKey: Hashable {
    var rip: UInt64
    var page: UInt
    var context: UInt32
}
