// What tests and tools of this package may see and do beyond the ABI: the firmware's digest, a hostile host's tricks, and
// a vCPU's GHCB handler without a processor. Nothing here is reachable through the seam.

import KVMABI
import MemoryController
import SEVABI
import SoftwarePSP

extension SoftwareKVM {
    /// The launch digest that the firmware holds for a VM; nil before LAUNCH_START.
    package func launchDigest(of vm: KernelHandle) -> LaunchDigest? {
        guard case .vm(let vm)? = handles[vm], let context = vm.snp?.context else { return nil }
        return secureProcessor.processor.launchDigest(of: context)
    }

    /// The vCPU behind a handle.
    package func vcpu(_ handle: KernelHandle) -> VirtualCPU? {
        guard case .vcpu(let vcpu, _)? = handles[handle] else { return nil }
        return vcpu
    }

    /// Where a page of a guest_memfd lies in system memory; nil for a hole.
    package func systemAddress(ofPage page: UInt64, in memfd: KernelHandle) -> SPA? {
        guard case .guestMemfd(let file)? = handles[memfd] else { return nil }
        return file.page(at: page)
    }

    /// A hostile host: two pages of a guest_memfd change places in the nested page table.
    package func swapPages(_ a: UInt64, _ b: UInt64, in memfd: KernelHandle) {
        guard case .guestMemfd(let file)? = handles[memfd] else { return }
        file.swapPages(a, b)
    }

    /// fallocate(PUNCH_HOLE) on a guest_memfd, which the seam has no call for.
    package func punchHole(atPage page: UInt64, in memfd: KernelHandle) {
        guard case .guestMemfd(let file)? = handles[memfd] else { return }
        file.punchHole(at: page)
    }
}

extension VirtualCPU {
    /// What a guest's WRMSR to 0xC0010130 and VMGEXIT do, without a processor.
    package func performVMGEXIT(ghcbMSR value: UInt64) -> RunStep {
        ghcbMSR = value
        return handleVMGEXIT()
    }

    /// The GHCB MSR as the guest would read it.
    package var currentGHCBMSR: UInt64 { ghcbMSR }

    /// Lets due timers of the local APIC fire, and takes the vector that would be injected.
    package func takeInterrupt() -> UInt8? {
        let now = HostClock.monotonic
        return vm.interrupts.withLock { controller in
            _ = controller.advanceTimers(vcpu: index, now: now)
            return controller.takeVector(vcpu: index)
        }
    }
}
