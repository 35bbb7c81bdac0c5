// MOVS, STOS, LODS, SCAS, CMPS with and without REP. Whole runs inside one source and one destination page go through
// memmove, memset and plain loops; faults leave RSI, RDI and RCX at the element that faulted, as the architecture says.
//
// The uop: `src` operation, `imm` element bytes, `scale` 0 none, 1 REP/REPE, 2 REPNE, `base` 4 or 2 for that address
// size, else 0. In 64-bit mode `dst` is the slot of the source segment's base; elsewhere `index` is the segment + 1.

import CX86State
import X86Defs

extension Processor {
    func stringOperation(_ ip: IP, at rip: UInt64) -> Bool {
        let s = self.s
        let u = ip.pointee
        let operation = SystemOperation(rawValue: u.src).unsafelyUnwrapped
        let size = Int(truncatingIfNeeded: u.imm)
        let repeated = u.scale != 0
        let width = u.base == 0 ? 8 : Int(u.base)
        let addressMask: UInt64 = width == 8 ? .max : width == 4 ? 0xffff_ffff : 0xffff
        let segmentBase: UInt64 = get(s, u.dst)
        let segmented = u.index != 0
        let sourceIndex = Int(u.index) &- 1
        let backward = s.pointee.system_flags & RFLAGS.df != 0
        // A trap behind every element [APM2 13.1.4].
        let stepping = s.pointee.system_flags & RFLAGS.tf != 0
        let step = backward ? 0 &- UInt64(size) : UInt64(size)
        let user = userMode
        let usesSource = operation == .movs || operation == .lods || operation == .cmps
        let usesTarget = operation != .lods
        var count: UInt64 = repeated ? get(s, Slot.gpr(1), as: UInt64.self) & addressMask : 1
        var rsi = get(s, Slot.gpr(6), as: UInt64.self) & addressMask
        var rdi = get(s, Slot.gpr(7), as: UInt64.self) & addressMask
        /// Registers after `count` was reduced to what is left.
        let startCount = count
        func save() {
            if count == startCount { return }  // Nothing done yet: nothing changes.
            if usesSource { putSized(Slot.gpr(6), rsi, width) }
            if usesTarget { putSized(Slot.gpr(7), rdi, width) }
            if repeated { putSized(Slot.gpr(1), count, width) }
        }
        if repeated && count == 0 { return true }
        let repeatWhileEqual = u.scale == 1
        while count > 0 {
            // How many elements fit into the pages at hand.
            var run = debugArmed || stepping ? 1 : count
            func limit(_ a: UInt64) {
                let inPage = backward ? (a & 0xfff) / UInt64(size) &+ 1 : (0x1000 &- (a & 0xfff)) / UInt64(size)
                run = min(run, inPage)
            }
            var sourceAddress = segmentBase &+ rsi, targetAddress = rdi
            if segmented {
                // What the segments and the address size leave of the run.
                func place(_ index: Int, _ offset: UInt64, write: Bool) -> UInt64? {
                    guard let a = linear(index, offset, size, write: write, at: rip) else { return nil }
                    let left = reach(
                        segmentRegister(index), offset &+ (backward ? UInt64(size &- 1) : 0), backward: backward)
                    let beforeWrap = backward ? offset &+ UInt64(size) : addressMask &- offset &+ 1
                    run = min(run, max(1, min(left, beforeWrap) / UInt64(size)))
                    return a
                }
                if usesSource {
                    guard let a = place(sourceIndex, rsi, write: false) else {
                        save()
                        return false
                    }
                    sourceAddress = a
                }
                if usesTarget {
                    guard let a = place(0, rdi, write: operation == .movs || operation == .stos) else {
                        // MOVS reads before it looks at what it writes to.
                        if operation == .movs { probeSource(sourceAddress, size, user, rip) }
                        save()
                        return false
                    }
                    targetAddress = a
                }
            }
            if usesSource { limit(sourceAddress) }
            if usesTarget { limit(targetAddress) }
            let whole =
                run > 0
                && !(backward
                    && ((usesSource && (sourceAddress & 0xfff) &+ UInt64(size) > 0x1000)
                        || (usesTarget && (targetAddress & 0xfff) &+ UInt64(size) > 0x1000)))
            if alignmentChecking, size > 1,
                !probeBefore(
                    operation, usesSource ? sourceAddress : nil, usesTarget ? targetAddress : nil, size, user, rip)
            {
                save()
                return false
            }
            if alignmentChecking, size > 1,
                (usesSource && sourceAddress & UInt64(size &- 1) != 0) && isCanonical(sourceAddress)
                    || (usesTarget && targetAddress & UInt64(size &- 1) != 0) && isCanonical(targetAddress)
            {
                save()
                prepareException(17, error: 0, at: rip)
                return false
            }
            // One element at a time across a page boundary, and where a device is.
            var byElement = !whole
            var source: UnsafeMutableRawPointer?, target: UnsafeMutableRawPointer?
            if whole, operation == .cmps, !repeated, amdOrder {
                // CMPS looks at its second operand first.
                target = linearPointer(targetAddress, .read, user: user, at: rip)
                if target == nil { byElement = true }
            }
            if whole, !byElement, usesSource {
                source = linearPointer(sourceAddress, .read, user: user, at: rip)
                if source == nil { byElement = true }
            }
            if !byElement, usesTarget, target == nil {
                let writes = operation == .movs || operation == .stos
                target = linearPointer(targetAddress, writes ? .write : .read, user: user, at: rip)
                if target == nil { byElement = true }
            }
            if byElement {
                guard !whole || takeDeviceHit() != nil,
                    crossingElement(operation, sourceAddress, targetAddress, size, user, rip)
                else {
                    save()
                    return false
                }
                run = 1
            } else {
                var done: UInt64
                switch operation {
                case .movs: done = moveRun(source!, target!, size, Int(run), backward)
                case .stos: done = storeRun(target!, size, Int(run), backward)
                case .lods:
                    let last = source! + (backward ? -1 : 1) * (Int(run) &- 1) &* size
                    loadAccumulator(last, size)
                    done = run
                case .scas:
                    done = compareRun(size, Int(run), repeated, repeatWhileEqual, backward, nil, target!)
                default:
                    done = compareRun(size, Int(run), repeated, repeatWhileEqual, backward, source!, target!)
                }
                if done == 0 { done = 1 }
                run = done
            }
            count &-= run
            if usesSource { rsi = (rsi &+ step &* run) & addressMask }
            if usesTarget { rdi = (rdi &+ step &* run) & addressMask }
            // The next element's loads from a device are others.
            answeredReads = completedMMIO
            // Single elements count too: across pages, on devices and beside breakpoints there is nothing else.
            if repeated { s.pointee.budget &-= Int64(truncatingIfNeeded: max(run &>> 3, 1)) }
            if let exit = pendingMMIOWrite {
                pendingMMIOWrite = nil
                save()
                let ends = operation == .cmps && flagZ(s) != repeatWhileEqual
                prepareExit(exit, at: repeated && count > 0 && !ends ? rip : nextInstruction(s, ip))
                return false
            }
            if debugArmed {
                // Data breakpoints trap behind the element.
                var hit = false
                if usesSource { hit = noteDataAccess(sourceAddress, size, write: false) }
                if usesTarget {
                    hit = noteDataAccess(targetAddress, size, write: operation == .movs || operation == .stos) || hit
                }
                if hit, repeated, count > 0 {
                    save()
                    s.pointee.rip = rip
                    return false
                }
            }
            if !repeated { break }
            if operation == .scas || operation == .cmps, flagZ(s) != repeatWhileEqual { break }
            if stepping, count > 0 {
                save()
                s.pointee.rip = rip
                return false
            }
            if count > 0, s.pointee.budget < 0 {
                save()
                s.pointee.rip = rip
                s.pointee.leave = UInt32(X86_LEAVE_BUDGET)
                return false
            }
        }
        save()
        return true
    }

    /// With alignment checking: the first operand's page comes before the second's alignment.
    private func probeBefore(
        _ operation: SystemOperation, _ source: UInt64?, _ target: UInt64?, _ size: Int, _ user: Bool, _ rip: UInt64
    ) -> Bool {
        guard let source, let target, source & UInt64(size &- 1) == 0 || !isCanonical(source),
            operation == .movs || operation == .cmps
        else {
            return true
        }
        return target & UInt64(size &- 1) == 0 || linearPointer(source, .read, user: user, at: rip) != nil
    }

    /// A fault of the source, if it has one, instead of the one that has been prepared.
    private func probeSource(_ a: UInt64, _ size: Int, _ user: Bool, _ rip: UInt64) {
        let (vector, error, hasError) = (s.pointee.vector, s.pointee.error_code, s.pointee.has_error_code)
        guard isAligned(a, UInt64(size), at: rip) else { return }
        if linearPointer(a, .read, user: user, at: rip) != nil || takeDeviceHit() != nil {
            prepareException(vector, error: hasError != 0 ? error : nil, at: rip)
        }
    }

    private func moveRun(
        _ source: UnsafeMutableRawPointer, _ target: UnsafeMutableRawPointer, _ size: Int, _ run: Int, _ backward: Bool
    ) -> UInt64 {
        let byteCount = run &* size
        if !backward {
            // Overlap with the target just ahead of the source repeats the pattern: element by element then.
            let distance = target - source
            if distance > 0 && distance < byteCount {
                for i in 0..<run { (target + i &* size).copyMemory(from: source + i &* size, byteCount: size) }
            } else {
                target.copyMemory(from: source, byteCount: byteCount)
            }
        } else {
            for i in 0..<run { (target - i &* size).copyMemory(from: source - i &* size, byteCount: size) }
        }
        return UInt64(run)
    }

    private func storeRun(_ target: UnsafeMutableRawPointer, _ size: Int, _ run: Int, _ backward: Bool) -> UInt64 {
        let start = backward ? target - (run &- 1) &* size : target
        let a: UInt64 = get(s, 0)
        let byte = UInt8(truncatingIfNeeded: a)
        let pattern = UInt64(byte) &* 0x0101_0101_0101_0101
        let mask: UInt64 = size == 8 ? .max : (1 &<< UInt64(size &* 8)) &- 1
        if a & mask == pattern & mask {
            start.initializeMemory(as: UInt8.self, repeating: byte, count: run &* size)
            return UInt64(run)
        }
        for i in 0..<run {
            switch size {
            case 1: (start + i).storeBytes(of: byte, as: UInt8.self)
            case 2: (start + i &* 2).storeBytes(of: UInt16(truncatingIfNeeded: a), as: UInt16.self)
            case 4: (start + i &* 4).storeBytes(of: UInt32(truncatingIfNeeded: a), as: UInt32.self)
            default: (start + i &* 8).storeBytes(of: a, as: UInt64.self)
            }
        }
        return UInt64(run)
    }

    private func loadAccumulator(_ p: UnsafeMutableRawPointer, _ size: Int) {
        putSized(0, element(p, size), size)
    }

    private func element(_ p: UnsafeMutableRawPointer, _ size: Int) -> UInt64 {
        switch size {
        case 1: return UInt64(p.load(as: UInt8.self))
        case 2: return UInt64(p.loadUnaligned(as: UInt16.self))
        case 4: return UInt64(p.loadUnaligned(as: UInt32.self))
        default: return p.loadUnaligned(as: UInt64.self)
        }
    }

    private func compareElements(_ a: UInt64, _ b: UInt64, _ size: Int) {
        func go<T: Word>(_ type: T.Type) {
            let x = T(truncatingIfNeeded: a), y = T(truncatingIfNeeded: b)
            let (r, carries) = compute(.cmp, x, y, carryIn: false)
            X86Core.setFlags(s, result: r, carries: carries)
        }
        switch size {
        case 1: go(UInt8.self)
        case 2: go(UInt16.self)
        case 4: go(UInt32.self)
        default: go(UInt64.self)
        }
    }

    /// Compares up to `run` elements; stops behind the one that ends a REPE or REPNE.
    private func compareRun(
        _ size: Int, _ run: Int, _ repeated: Bool, _ whileEqual: Bool, _ backward: Bool,
        _ source: UnsafeMutableRawPointer?, _ target: UnsafeMutableRawPointer
    ) -> UInt64 {
        let stride = backward ? 0 &- size : size
        for i in 0..<run {
            let b = element(target + i &* stride, size)
            let a = source.map { element($0 + i &* stride, size) } ?? get(s, 0)
            compareElements(a, b, size)
            if !repeated || flagZ(s) != whileEqual { return UInt64(i &+ 1) }
        }
        return UInt64(run)
    }

    private func crossingElement(
        _ operation: SystemOperation, _ source: UInt64, _ target: UInt64, _ size: Int, _ user: Bool, _ rip: UInt64
    ) -> Bool {
        func load(_ a: UInt64) -> UInt64? {
            switch size {
            case 1: return read(a, as: UInt8.self, user: user, at: rip).map { UInt64($0) }
            case 2: return read(a, as: UInt16.self, user: user, at: rip).map { UInt64($0) }
            case 4: return read(a, as: UInt32.self, user: user, at: rip).map { UInt64($0) }
            default: return read(a, as: UInt64.self, user: user, at: rip)
            }
        }
        func store(_ v: UInt64) -> Bool {
            switch size {
            case 1: return write(target, UInt8(truncatingIfNeeded: v), user: user, at: rip)
            case 2: return write(target, UInt16(truncatingIfNeeded: v), user: user, at: rip)
            case 4: return write(target, UInt32(truncatingIfNeeded: v), user: user, at: rip)
            default: return write(target, v, user: user, at: rip)
            }
        }
        switch operation {
        case .movs:
            guard let v = load(source) else { return false }
            return store(v)
        case .stos: return store(get(s, 0))
        case .lods:
            guard let v = load(source) else { return false }
            putSized(0, v, size)
            return true
        case .scas:
            guard let v = load(target) else { return false }
            compareElements(get(s, 0), v, size)
            return true
        default:
            guard let a = load(source), let b = load(target) else { return false }
            compareElements(a, b, size)
            return true
        }
    }
}
