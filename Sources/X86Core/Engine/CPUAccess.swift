// The handlers' view of the processor: register slots, effective addresses, the TLB's hit path, and how a uop passes
// control on. Everything here is inlined into every handler; a handler ends in a tail call, so nothing may be left to
// do after it: slow paths are tail calls as well.

import CX86State

typealias CPU = UnsafeMutablePointer<x86_cpu>
typealias IP = UnsafePointer<x86_uop>
typealias Word = FixedWidthInteger & UnsignedInteger & BitwiseCopyable

/// Byte offsets of register slots in `x86_cpu`.
enum Slot {
    @inline(__always) static func gpr(_ n: Int) -> UInt16 { UInt16(truncatingIfNeeded: n &* 8) }
    static var rsp: UInt16 { @inline(__always) get { 4 * 8 } }
    static var rbp: UInt16 { @inline(__always) get { 5 * 8 } }
    static var zero: UInt16 { @inline(__always) get { 128 } }
    @inline(__always) static func tmp(_ n: Int) -> UInt16 { UInt16(truncatingIfNeeded: 136 &+ n &* 8) }
    static var fsBase: UInt16 { @inline(__always) get { 168 } }
    static var gsBase: UInt16 { @inline(__always) get { 176 } }
    static let xmm0 = UInt16(MemoryLayout<x86_cpu>.offset(of: \.xmm)!)
    static let mm0 = UInt16(MemoryLayout<x86_cpu>.offset(of: \.st_mantissa)!)
    static let xtmp = UInt16(MemoryLayout<x86_cpu>.offset(of: \.xtmp)!)
    /// From a vector register's slot to that of its upper half.
    static var upper: UInt16 { @inline(__always) get { UInt16(truncatingIfNeeded: X86_UPPER_HALF_DISTANCE) } }
}

@inline(__always)
func get<T: Word>(_ s: CPU, _ slot: UInt16, as type: T.Type = T.self) -> T {
    UnsafeRawPointer(s).loadUnaligned(fromByteOffset: Int(slot), as: T.self)
}

/// Writes a register the way the architecture does: 32-bit results clear the upper half, 8 and 16-bit ones merge.
@inline(__always)
func put<T: Word>(_ s: CPU, _ slot: UInt16, _ value: T) {
    if T.bitWidth == 32 {
        UnsafeMutableRawPointer(s).storeBytes(
            of: UInt64(truncatingIfNeeded: value), toByteOffset: Int(slot), as: UInt64.self)
    } else {
        UnsafeMutableRawPointer(s).storeBytes(of: value, toByteOffset: Int(slot), as: T.self)
    }
}

/// The effective address: base + index << scale + displacement.
@inline(__always)
func address(_ s: CPU, _ ip: IP) -> UInt64 {
    get(s, ip.pointee.base, as: UInt64.self)
        &+ (get(s, ip.pointee.index, as: UInt64.self) &<< UInt64(ip.pointee.scale))
        &+ UInt64(bitPattern: Int64(ip.pointee.disp))
}

@inline(__always)
func host(_ address: UInt64) -> UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(bitPattern: UInt(address)).unsafelyUnwrapped
}

@inline(__always)
func tlbEntry(_ s: CPU, _ a: UInt64) -> UnsafeMutablePointer<x86_tlb_entry> {
    s.pointee.tlb + Int((a &>> 12) & UInt64(X86_TLB_SIZE - 1))
}

/// The host address of a readable operand, or nil: not in the TLB, page-crossing, a device, or needing a check.
@inline(__always)
func readable<T: BitwiseCopyable>(_ s: CPU, _ a: UInt64, as type: T.Type) -> UnsafeRawPointer? {
    let e = tlbEntry(s, a)
    guard e.pointee.read == (a &+ UInt64(MemoryLayout<T>.size &- 1)) & ~0xfff else { return nil }
    return UnsafeRawPointer(host(a &+ e.pointee.addend))
}

@inline(__always)
func writable<T: BitwiseCopyable>(_ s: CPU, _ a: UInt64, as type: T.Type) -> UnsafeMutableRawPointer? {
    let e = tlbEntry(s, a)
    guard e.pointee.write == (a &+ UInt64(MemoryLayout<T>.size &- 1)) & ~0xfff else { return nil }
    return host(a &+ e.pointee.addend)
}

/// Continues with a uop: a tail call. Debug builds compile file by file, which leaves calls where jumps must be; there
/// the run loop makes each step (`repeatUops`), slower but with a flat stack.
@inline(__always)
func go(_ s: CPU, _ ip: IP) {
    #if DEBUG
        s.pointee.resume_uop = ip
        s.pointee.leave = UInt32(X86_LEAVE_REDO)
    #else
        ip.pointee.fn(s, ip)
    #endif
}

/// Continues with the next uop.
@inline(__always)
func next(_ s: CPU, _ ip: IP) { go(s, ip + 1) }

/// Enters a block: its header, one record before the first uop, holds the guest address and the instruction count.
@inline(__always)
func enter(_ s: CPU, _ first: IP, unspent: Int64 = 0) {
    let header = first - 1
    s.pointee.rip = header.pointee.imm
    let budget = s.pointee.budget &+ unspent &- Int64(header.pointee.disp)
    s.pointee.budget = budget
    if budget < 0 { return outOfBudget(s, header) }
    go(s, first)
}

@inline(never)
func outOfBudget(_ s: CPU, _ header: IP) {
    s.pointee.budget &+= Int64(header.pointee.disp)
    s.pointee.leave = UInt32(X86_LEAVE_BUDGET)
}

/// A direct branch inside a page: linked once, valid as long as the block lives.
@inline(__always)
func branchNear(_ s: CPU, _ ip: IP) {
    guard let target = IP(bitPattern: UInt(ip.pointee.imm)) else { return branchUnlinked(s, ip) }
    enter(s, target, unspent: Int64(ip.pointee.dst))
}

/// A direct branch to another page: its link is valid only in the TLB generation that made it.
@inline(__always)
func branchFar(_ s: CPU, _ ip: IP) {
    let generation = UnsafeRawPointer(ip).load(fromByteOffset: 12, as: UInt32.self)
    guard generation == s.pointee.generation else { return branchFarAgain(s, ip) }
    enter(s, IP(bitPattern: UInt(ip.pointee.imm)).unsafelyUnwrapped, unspent: Int64(ip.pointee.dst))
}

/// Is the block that this starts still the one at a linear address? Its header says where it was decoded, 0 after its
/// end; the fetch cache says what is there now.
@inline(__always)
private func leads(_ s: CPU, _ first: IP, to linear: UInt64) -> Bool {
    let header = UnsafeRawPointer(first - 1)
    let fetch = s.pointee.fetches + Int((linear &>> 12) & UInt64(X86_FETCH_SIZE - 1))
    return (first - 1).pointee.imm == linear
        && fetch.pointee.tag == (linear & ~0xfff) | (s.pointee.cpl == 3 ? 3 : 2)
        && header.load(fromByteOffset: 8, as: UInt64.self) == fetch.pointee.page
        && header.load(fromByteOffset: 16, as: UInt32.self) == s.pointee.context
}

/// A branch to another page whose link is of an older generation of the TLB, and mostly as good as ever.
@inline(never)
func branchFarAgain(_ s: CPU, _ ip: IP) {
    let linear = (s.pointee.rip &+ UInt64(bitPattern: Int64(ip.pointee.disp))) & s.pointee.rip_mask
    guard let first = IP(bitPattern: UInt(ip.pointee.imm)), leads(s, first, to: linear) else {
        return branchUnlinked(s, ip)
    }
    UnsafeMutableRawPointer(mutating: ip).storeBytes(of: s.pointee.generation, toByteOffset: 12, as: UInt32.self)
    s.pointee.budget &+= Int64(ip.pointee.dst)
    leaveForBlock(s, first)
}

/// Lets the run loop enter a block: a call from a slow path would not be a tail call.
@inline(__always)
private func leaveForBlock(_ s: CPU, _ first: IP) {
    let header = first - 1
    s.pointee.rip = header.pointee.imm
    s.pointee.budget &-= Int64(header.pointee.disp)
    if s.pointee.budget < 0 { return outOfBudget(s, header) }
    s.pointee.resume_uop = first
    s.pointee.leave = UInt32(X86_LEAVE_REDO)
}

@inline(never)
func branchUnlinked(_ s: CPU, _ ip: IP) {
    s.pointee.budget &+= Int64(ip.pointee.dst)
    s.pointee.link = UnsafeMutablePointer(mutating: ip)
    s.pointee.rip = (s.pointee.rip &+ UInt64(bitPattern: Int64(ip.pointee.disp))) & s.pointee.rip_mask
    s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
}

/// The block at a target that an indirect branch went to before.
@inline(__always)
func recentTarget(_ s: CPU, _ target: UInt64) -> IP? {
    let e = s.pointee.jumps + Int((target ^ (target &>> 12)) & UInt64(X86_JUMP_SIZE - 1))
    return e.pointee.key == target ^ s.pointee.jump_key ? e.pointee.target : nil
}

/// An indirect branch: a direct-mapped table of recent targets.
@inline(__always)
func branchIndirect(_ s: CPU, _ target: UInt64) {
    let e = s.pointee.jumps + Int((target ^ (target &>> 12)) & UInt64(X86_JUMP_SIZE - 1))
    guard e.pointee.key == target ^ s.pointee.jump_key, let first = e.pointee.target else {
        return branchIndirectAgain(s, target)
    }
    enter(s, first)
}

/// The table's entry may be of an older generation.
@inline(never)
func branchIndirectAgain(_ s: CPU, _ target: UInt64) {
    let e = s.pointee.jumps + Int((target ^ (target &>> 12)) & UInt64(X86_JUMP_SIZE - 1))
    guard let first = e.pointee.target, leads(s, first, to: target) else { return leaveForLookup(s, target) }
    e.pointee.key = target ^ s.pointee.jump_key
    s.pointee.link = nil
    leaveForBlock(s, first)
}

@inline(never)
func leaveForLookup(_ s: CPU, _ target: UInt64) {
    s.pointee.rip = target
    s.pointee.link = nil
    s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
}

/// The guest address of the instruction that `ip` belongs to, and of the one after it.
@inline(__always) func instructionAddress(_ s: CPU, _ ip: IP) -> UInt64 { s.pointee.rip &+ UInt64(ip.pointee.off) }
@inline(__always) func nextInstruction(_ s: CPU, _ ip: IP) -> UInt64 {
    s.pointee.rip &+ UInt64(ip.pointee.off) &+ UInt64(ip.pointee.len)
}
