// What happens when the TLB's hit path says no: fill and repeat the uop, or let it run once against a bounce buffer.
//
// The bounce serves every access that is not "one page of memory": page-crossing operands, devices, stores to the page
// whose code is running, and all accesses while alignment checking is on. The uop is copied to `scratch` with a TLB
// entry that leads to the buffer; behind it come `after` (which puts stores where they belong), the rest of the
// instruction's uops, and `resume`. So no handler needs a slow variant of itself.

import CX86State
import X86Defs

@inline(never)
func slowRead(_ s: CPU, _ ip: IP, _ a: UInt64, _ size: Int, stack: Bool = false) {
    processor(s).slowAccess(ip, a, size, write: false, reads: true, stack: stack)
}

@inline(never)
func slowWrite(_ s: CPU, _ ip: IP, _ a: UInt64, _ size: Int, stack: Bool = false, reads: Bool = true) {
    processor(s).slowAccess(ip, a, size, write: true, reads: reads, stack: stack)
}

@inline(__always)
func processor(_ s: CPU) -> Processor {
    Unmanaged<Processor>.fromOpaque(s.pointee.owner.unsafelyUnwrapped).takeUnretainedValue()
}

/// An answered load from a device.
struct DeviceRead {
    var gpa: UInt64
    var byteCount: Int
    var value: UInt64
}

/// One contiguous part of a bounced access.
struct BouncePiece {
    var host: UnsafeMutableRawPointer?
    var gpa: UInt64
    var byteCount: Int
}

extension Processor {
    /// Makes the access possible and leaves to the run loop, which repeats the uop (or its copy in `scratch`). Going
    /// through the loop keeps the host stack flat: a call from here would not be a tail call.
    func slowAccess(
        _ ip: IP, _ a: UInt64, _ size: Int, write: Bool, reads: Bool, stack: Bool, locked: Bool = false
    ) {
        guard let again = prepareAccess(ip, a, size, write: write, reads: reads, stack: stack, locked: locked) else {
            return
        }
        s.pointee.resume_uop = again
        s.pointee.leave = UInt32(X86_LEAVE_REDO)
    }

    private func prepareAccess(
        _ ip: IP, _ a: UInt64, _ size: Int, write: Bool, reads: Bool, stack: Bool, locked: Bool
    ) -> IP? {
        let s = self.s
        // A copy: forgetting the page's code may turn this very uop into `stale`.
        let origin = ip.pointee
        let rip = instructionAddress(s, ip)
        let stackOperand =
            stack || ip.pointee.base == Slot.rsp || ip.pointee.base == Slot.rbp || ip.pointee.scale & 0x40 != 0
        let last = a &+ UInt64(size &- 1)
        // Flat segments outside 64-bit mode end at 4 GiB.
        guard isCanonical(a), isCanonical(last), s.pointee.legacy == 0 || last &>> 32 == 0 else {
            prepareException(stackOperand ? 12 : 13, error: 0, at: rip)
            return nil
        }
        let user = s.pointee.cpl == 3
        let checked = alignmentChecking
        if checked, a & UInt64(min(size, 16) &- 1) != 0, size <= 8 || features.contains(.amdOrder) {
            prepareException(17, error: 0, at: rip)
            return nil
        }
        let access: Access = write ? .write : .read
        let watched = debugArmed && (isWatched(a) || isWatched(last))
        if (a ^ last) & ~0xfff == 0 {
            guard let page = walk(a, access, user: user, at: rip), let found = hostPage(page, access, at: rip) else {
                return nil
            }
            if case .memory(let host, var storable) = found {
                let hostPage = UInt(bitPattern: host)
                if isCodePage(hostPage) {
                    if write {
                        guard !othersRun else { return prepareAlone(at: rip) }
                        let here = codePages.contains(hostPage) && runningInside(hostPage, ip)
                        forgetCodePageEverywhere(hostPage)
                        if here {
                            return bounce(
                                ip, origin, a, size, [piece(host, a, size)], write: true, reads: reads, leaving: true)
                        }
                    } else {
                        storable = false
                    }
                }
                if checked || watched || locked && a & UInt64(size &- 1) != 0 {
                    // What goes through the buffer is not atomic to others.
                    guard !locked || !othersRun else { return prepareAlone(at: rip) }
                    let hit = watched && noteDataAccess(a, size, write: write)
                    return bounce(
                        ip, origin, a, size, [piece(host, a, size)], write: write, reads: reads, leaving: hit)
                }
                fill(a, host, storable: storable, isGlobal: page.isGlobal)
                return ip
            }
            guard case .device(let gpa) = found else { return nil }
            return bounceDevices(
                ip, origin, a, size, devicePieces(gpa, size), write: write, reads: reads, at: rip)
        }
        // Page-crossing: both pages first, then the bounce.
        let firstCount = Int(0x1000 &- (a & 0xfff))
        guard let page1 = walk(a, access, user: user, at: rip), let found1 = hostPage(page1, access, at: rip),
            let page2 = walk(last & ~0xfff, access, user: user, at: rip), let found2 = hostPage(page2, access, at: rip)
        else { return nil }
        guard case .memory(let host1, _) = found1, case .memory(let host2, _) = found2 else {
            var pieces: [BouncePiece] = []
            for (found, offset, byteCount) in [(found1, Int(a & 0xfff), firstCount), (found2, 0, size &- firstCount)] {
                switch found {
                case .device(let gpa): pieces += devicePieces(gpa, byteCount)
                case .memory(let host, _):
                    if write, isCodePage(UInt(bitPattern: host)) {
                        prepareUnimplemented("a store to code and to a device", at: rip)
                        return nil
                    }
                    pieces.append(BouncePiece(host: host + offset, gpa: 0, byteCount: byteCount))
                }
            }
            return bounceDevices(ip, origin, a, size, pieces, write: write, reads: reads, at: rip)
        }
        var leaving = false
        if othersRun, locked || write && (isCodePage(UInt(bitPattern: host1)) || isCodePage(UInt(bitPattern: host2))) {
            return prepareAlone(at: rip)
        }
        if write {
            for page in [UInt(bitPattern: host1), UInt(bitPattern: host2)] where isCodePage(page) {
                leaving = leaving || codePages.contains(page) && runningInside(page, ip)
                forgetCodePageEverywhere(page)
            }
        }
        if watched, noteDataAccess(a, size, write: write) { leaving = true }
        let pieces = [
            BouncePiece(host: host1 + Int(a & 0xfff), gpa: 0, byteCount: firstCount),
            BouncePiece(host: host2, gpa: 0, byteCount: size &- firstCount),
        ]
        return bounce(ip, origin, a, size, pieces, write: write, reads: reads, leaving: leaving)
    }

    func piece(_ host: UnsafeMutableRawPointer, _ a: UInt64, _ size: Int) -> BouncePiece {
        BouncePiece(host: host + Int(a & 0xfff), gpa: 0, byteCount: size)
    }

    /// Alignment checking: CPL 3, CR0.AM and RFLAGS.AC.
    var alignmentChecking: Bool {
        s.pointee.cpl == 3 && s.pointee.cr0 & CR0.am != 0 && s.pointee.system_flags & RFLAGS.ac != 0
    }

    /// Accesses to a device, of up to 8 bytes each, as KVM makes them.
    private func devicePieces(_ gpa: UInt64, _ byteCount: Int) -> [BouncePiece] {
        stride(from: 0, to: byteCount, by: 8).map {
            BouncePiece(host: nil, gpa: gpa &+ UInt64($0), byteCount: min(8, byteCount &- $0))
        }
    }

    private func bounceDevices(
        _ ip: IP, _ origin: x86_uop, _ a: UInt64, _ size: Int, _ pieces: [BouncePiece], write: Bool, reads: Bool,
        at rip: UInt64
    ) -> IP? {
        let buffer = UnsafeMutableRawPointer(s.pointer(to: \.bounce)!)
        var at = 0
        for p in pieces where reads {
            if let host = p.host {
                (buffer + at).copyMemory(from: host, byteCount: p.byteCount)
            } else {
                var value: UInt64 = 0
                guard deviceRead(p.gpa, p.byteCount, &value) else {
                    prepareExit(.mmio(gpa: p.gpa, byteCount: p.byteCount, write: false, value: 0), at: rip)
                    return nil
                }
                withUnsafeBytes(of: value) { (buffer + at).copyMemory(from: $0.baseAddress!, byteCount: p.byteCount) }
            }
            at &+= p.byteCount
        }
        return bounce(ip, origin, a, size, pieces, write: write, reads: false, leaving: false)
    }

    /// A value given by ``completeMMIO(value:)`` first, then the in-kernel devices.
    func deviceRead(_ gpa: UInt64, _ size: Int, _ value: inout UInt64) -> Bool {
        if let done = completedMMIO.first, done.gpa == gpa, done.byteCount == size {
            value = done.value
            completedMMIO.removeFirst()
            return true
        }
        return memory.deviceRead(gpa: gpa, byteCount: size, into: &value)
    }

    private func bounce(
        _ ip: IP, _ origin: x86_uop, _ a: UInt64, _ size: Int, _ pieces: [BouncePiece], write: Bool, reads: Bool,
        leaving: Bool
    ) -> IP {
        let s = self.s
        let buffer = UnsafeMutableRawPointer(s.pointer(to: \.bounce)!)
        if reads {
            var at = 0
            for p in pieces {
                if let host = p.host { copyPiece(from: host, to: buffer + at, p.byteCount) }
                at &+= p.byteCount
            }
        }
        bouncePieces = write ? pieces : []
        // Borrow the TLB entry that the handler will look at.
        let index = Int((a &>> 12) & UInt64(X86_TLB_SIZE - 1))
        let entry = s.pointee.tlb + index
        s.pointee.bounce_saved = entry.pointee
        s.pointee.bounce_index = UInt32(truncatingIfNeeded: index)
        let tag = (a &+ UInt64(size &- 1)) & ~0xfff
        entry.pointee = x86_tlb_entry(
            read: tag, write: write ? tag : 1, global: 0, addend: UInt64(UInt(bitPattern: buffer)) &- a)
        // The uop, `after`, the instruction's other uops, and the way back (marked 0xffff like a block's end). `ip` may
        // itself be in `scratch`, behind a bounced first half of this instruction: then the way back stays what it is.
        let scratch = UnsafeMutableRawPointer(s.pointer(to: \.scratch)!).assumingMemoryBound(to: x86_uop.self)
        let nested = ip >= IP(scratch) && ip < IP(scratch) + 16
        scratch[0] = origin
        scratch[1] = origin
        scratch[1].fn = h_after
        var n = 2
        var rest = ip + 1
        while rest.pointee.off == origin.off, n < 14 {
            scratch[n] = rest.pointee
            n &+= 1
            rest += 1
        }
        scratch[n] = origin
        scratch[n].fn = h_resume
        scratch[n].off = 0xffff
        scratch[n].disp = Int32(origin.off) &+ Int32(origin.len)
        leavingAfterBounce = leaving || nested && leavingAfterBounce
        if !nested { s.pointee.resume = rest }
        return IP(scratch)
    }

    /// Words in one piece: other processors look.
    private func copyPiece(from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, _ byteCount: Int) {
        switch byteCount {
        case 8: target.storeBytes(of: source.loadUnaligned(as: UInt64.self), as: UInt64.self)
        case 4: target.storeBytes(of: source.loadUnaligned(as: UInt32.self), as: UInt32.self)
        case 2: target.storeBytes(of: source.loadUnaligned(as: UInt16.self), as: UInt16.self)
        default: target.copyMemory(from: source, byteCount: byteCount)
        }
    }

    /// Behind the bounced uop: gives the TLB entry back and carries stores out.
    func finishBounce() {
        let s = self.s
        s.pointee.tlb[Int(s.pointee.bounce_index)] = s.pointee.bounce_saved
        let buffer = UnsafeRawPointer(s.pointer(to: \.bounce)!)
        var at = 0
        for p in bouncePieces {
            if let host = p.host {
                copyPiece(from: buffer + at, to: host, p.byteCount)
            } else {
                var value: UInt64 = 0
                withUnsafeMutableBytes(of: &value) {
                    $0.baseAddress!.copyMemory(from: buffer + at, byteCount: min(8, p.byteCount))
                }
                leavingAfterBounce = true
                writeDevice(p.gpa, p.byteCount, value)
            }
            at &+= p.byteCount
        }
        bouncePieces.removeAll(keepingCapacity: true)
    }

    /// Enters a page into the current TLB.
    func fill(_ a: UInt64, _ host: UnsafeMutableRawPointer, storable: Bool, isGlobal: Bool) {
        let tag = a & ~0xfff
        let entry = tlbEntry(s, a)
        entry.pointee = x86_tlb_entry(
            read: tag, write: storable ? tag : 1, global: isGlobal ? 1 : 0,
            addend: UInt64(UInt(bitPattern: host)) &- tag)
    }

    @inline(__always)
    func isCanonical(_ a: UInt64) -> Bool {
        UInt64(bitPattern: Int64(bitPattern: a &<< canonicalShift) &>> Int64(canonicalShift)) == a
    }
}

/// Behind a bounced uop.
@inline(__always)
func afterBounce(_ s: CPU, _ ip: IP) {
    finishBounce(s)
    next(s, ip)
}

@inline(never)
private func finishBounce(_ s: CPU) { processor(s).finishBounce() }

@inline(__always)
func resumeAfterBounce(_ s: CPU, _ ip: IP) {
    if leaveAfterBounce(s, ip) { return }
    let resume = s.pointee.resume.unsafelyUnwrapped
    go(s, resume)
}

@inline(never)
private func leaveAfterBounce(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    let next = s.pointee.rip &+ UInt64(bitPattern: Int64(ip.pointee.disp))
    if let exit = p.pendingMMIOWrite {
        p.pendingMMIOWrite = nil
        p.prepareExit(exit, at: next)
        return true
    }
    if p.leavingAfterBounce { leaveForLookup(s, next) }
    return p.leavingAfterBounce
}
