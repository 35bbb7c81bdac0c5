// The handles of a machine, for reports and tools that ask a host kernel themselves. Whoever has them can do everything
// with the VM that the machine can: they are not public.

import KVMABI

extension Machine {
    package var vmHandle: KernelHandle { vm }
    /// In vCPU order.
    package var processorHandles: [KernelHandle] { processors.map(\.handle) }
}
