// Port and MMIO accesses of a guest with encrypted state: data travels in registers of the GHCB or in its scratch area.

import KVMABI
import SEVABI

/// A string port access under way: elements in the scratch area.
package struct StringTransfer: Equatable, Sendable {
    var session: GHCBSession
    var port: UInt16
    var elementByteCount: Int
    var isInput: Bool
    /// Bytes done, bytes in all, bytes in the exit that is under way.
    var done = 0
    var byteCount: Int
    var inflight = 0
}

/// An MMIO access under way: up to eight bytes per exit.
package struct MMIOTransfer: Equatable, Sendable {
    var session: GHCBSession
    var gpa: UInt64
    var isWrite: Bool
    var done = 0
    var byteCount: Int
    /// Taken once, for writes.
    var data: [UInt8]
}

extension VirtualCPU {
    // MARK: Ports

    func handlePortEvent(_ session: GHCBSession) -> RunStep {
        var session = session
        let information = session.exitInfo1
        guard let size = IOIOInformation.byteCount(information) else { return refuse(session, .invalidInput) }
        let port = IOIOInformation.port(information)
        let isInput = information & IOIOInformation.isInput != 0
        if information & IOIOInformation.string != 0 {
            let (byteCount, overflow) = session.exitInfo2.multipliedReportingOverflow(by: UInt64(size))
            if overflow || session.exitInfo2 > UInt64(Int32.max) { return .fail(.EINVAL) }
            guard ScratchArea(scratch: session.scratch, byteCount: byteCount, ghcbGPA: session.gpa) != nil else {
                return refuse(session, .invalidScratchArea)
            }
            return continueString(
                StringTransfer(
                    session: session, port: port, elementByteCount: size, isInput: isInput, byteCount: Int(byteCount)))
        }
        if isInput {
            if let value = readKernelPort(port, byteCount: size) {
                session.rax = merge(session.rax, value, size)
                return finish(session)
            }
        } else if writeKernelPort(port, byteCount: size, value: session.rax) {
            return finish(session)
        }
        let io = RunPage.PortIO(isWrite: !isInput, size: UInt8(size), port: port)
        runPage.portIO = io
        if isInput {
            completion = .ghcbPortRead(session, size)
        } else {
            runPage.mapping.store(UInt32(truncatingIfNeeded: session.rax), at: Int(io.dataOffset))
            completion = .ghcbPortWrite(session)
        }
        return .exit(.io)
    }

    func completeGHCBPortRead(_ session: GHCBSession, _ size: Int) -> RunStep {
        var session = session
        session.rax = merge(session.rax, UInt64(runPage.mapping.load(at: 0x1000, as: UInt32.self)), size)
        return finish(session)
    }

    /// KVM replaces the low bytes of RAX; a 32-bit value clears the rest.
    private func merge(_ rax: UInt64, _ value: UInt64, _ size: Int) -> UInt64 {
        if size >= 4 { return value & 0xffff_ffff }
        let mask = (UInt64(1) << UInt64(8 * size)) - 1
        return rax & ~mask | value & mask
    }

    /// Sends the next part of a string access, at most a page of data.
    private func continueString(_ transfer: StringTransfer) -> RunStep {
        var transfer = transfer
        let rest = transfer.byteCount - transfer.done
        if rest == 0 { return finish(transfer.session) }
        transfer.inflight = min(rest, 4096)
        let io = RunPage.PortIO(
            isWrite: !transfer.isInput, size: UInt8(transfer.elementByteCount), port: transfer.port,
            count: UInt32(transfer.inflight / transfer.elementByteCount))
        if !transfer.isInput {
            guard
                let bytes = vm.memory.read(
                    gpa: transfer.session.scratch &+ UInt64(transfer.done), byteCount: transfer.inflight)
            else { return .fail(.EFAULT) }
            runPage.setPortData(bytes, io)
        }
        runPage.portIO = io
        completion = .ghcbString(transfer)
        return .exit(.io)
    }

    func completeString(_ transfer: StringTransfer) -> RunStep {
        var transfer = transfer
        if transfer.isInput {
            let bytes = runPage.mapping.copyBytes(at: 0x1000, count: transfer.inflight)
            guard vm.memory.write(gpa: transfer.session.scratch &+ UInt64(transfer.done), bytes) else {
                return .fail(.EFAULT)
            }
        }
        transfer.done += transfer.inflight
        transfer.inflight = 0
        return continueString(transfer)
    }

    /// Ports of devices in the kernel: byte registers, a wider access touches the first.
    func readKernelPort(_ port: UInt16, byteCount: Int) -> UInt64? {
        let now = HostClock.monotonic
        guard let value = vm.withInterrupts({ $0.readPort(port, now: now) }) else { return nil }
        return byteCount == 1 ? UInt64(value) : UInt64(value) | 0xffff_ff00
    }

    func writeKernelPort(_ port: UInt16, byteCount: Int, value: UInt64) -> Bool {
        let now = HostClock.monotonic
        return vm.withInterrupts { $0.writePort(port, UInt8(truncatingIfNeeded: value), now: now) }
    }

    // MARK: MMIO

    func handleMMIOEvent(_ session: GHCBSession, isWrite: Bool) -> RunStep {
        let count = session.exitInfo2
        guard let area = ScratchArea(scratch: session.scratch, byteCount: count, ghcbGPA: session.gpa) else {
            return refuse(session, .invalidScratchArea)
        }
        // KVM's WARN-free answer to a length of zero: nothing happens.
        if area.byteCount == 0 { return finish(session) }
        var transfer = MMIOTransfer(
            session: session, gpa: session.exitInfo1, isWrite: isWrite, byteCount: area.byteCount, data: [])
        if isWrite {
            guard let bytes = vm.memory.read(gpa: area.gpa, byteCount: area.byteCount) else { return .fail(.EFAULT) }
            transfer.data = bytes
        }
        return continueMMIO(transfer)
    }

    private func continueMMIO(_ transfer: MMIOTransfer) -> RunStep {
        var transfer = transfer
        while transfer.done < transfer.byteCount {
            let gpa = transfer.gpa &+ UInt64(transfer.done)
            let count = min(8, transfer.byteCount - transfer.done)
            var data: UInt64 = 0
            if transfer.isWrite {
                for byte in 0..<count { data |= UInt64(transfer.data[transfer.done + byte]) << UInt64(8 * byte) }
                if !writeKernelDevice(gpa: gpa, byteCount: count, value: data) {
                    return exitForMMIO(transfer, gpa: gpa, byteCount: count, data: data)
                }
            } else {
                guard let value = readKernelDevice(gpa: gpa, byteCount: count) else {
                    return exitForMMIO(transfer, gpa: gpa, byteCount: count, data: 0)
                }
                guard store(value, count, transfer) else { return .fail(.EFAULT) }
            }
            transfer.done += count
        }
        return finish(transfer.session)
    }

    private func exitForMMIO(_ transfer: MMIOTransfer, gpa: UInt64, byteCount: Int, data: UInt64) -> RunStep {
        runPage.mmio = RunPage.MMIO(
            physicalAddress: gpa, data: data, byteCount: UInt32(byteCount), isWrite: transfer.isWrite)
        completion = .ghcbMMIO(transfer)
        return .exit(.mmio)
    }

    private func store(_ value: UInt64, _ count: Int, _ transfer: MMIOTransfer) -> Bool {
        vm.memory.write(
            gpa: transfer.session.scratch &+ UInt64(transfer.done), Array(value.kernelBytes.prefix(count)))
    }

    func completeMMIO(_ transfer: MMIOTransfer) -> RunStep {
        var transfer = transfer
        let count = min(8, transfer.byteCount - transfer.done)
        if !transfer.isWrite {
            guard store(runPage.mmioData, count, transfer) else { return .fail(.EFAULT) }
        }
        transfer.done += count
        return continueMMIO(transfer)
    }
}
