// What the system around the software kernel shows: the facts that a look at /proc, /sys and the MSRs would give. The kernel
// and the firmware are asked themselves.

import HostDiagnosis
import KVMABI
import SEVABI

extension SoftwareKVM {
    /// The facts of the software machine's host that the seam does not show.
    public var systemFacts: HostFacts {
        let scenario = configuration.scenario
        let profile = configuration.profile
        func yes(_ type: VMType) -> HostValue { .text(scenario.vmTypes.contains(type) ? "Y" : "N") }
        let types = scenario.vmTypes
        let isSNPOn = types.contains(.snp)
        let stateASIDs = UInt64(secureProcessor.asidCount(.encryptedState))
        let memoryASIDs = UInt64(secureProcessor.asidCount(.memoryOnly))

        var facts = HostFacts()
        facts[.cpuVendor] = .text("AuthenticAMD")
        facts[.cpuBrand] = HostFacts.plain(profile.brand)
        facts[.cpuSignature] = .number(UInt64(profile.signature))
        facts[.cpuIsGuest] = .flag(false)
        facts[.cpuSMT] = .flag(configuration.platform.smtEnabled)
        // SME, SEV, SEV-ES, SNP, VMPL, cache coherency: the processor has them, whatever the BIOS makes of it.
        facts[.sevFeatures] = .number(1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 10)
        facts[.sevCBit] = .number(UInt64(profile.cBitPosition))
        facts[.sevASIDs] = .number(UInt64(profile.asidCount))
        facts[.sevMinimumASID] = .number(UInt64(profile.minimumSEVASID))
        facts[.syscfg] = .number(1 << 23 | (isSNPOn ? 1 << 24 | 1 << 25 : 0))
        facts[.hwcr] = .number(1)
        // 16 bytes for each page, behind 16 KiB of the processor's own [APM2 15.36.4].
        let base: UInt64 = 1 << 30
        facts[.rmpBase] = .number(base)
        facts[.rmpEnd] = .number(base &+ 16 << 10 &+ (configuration.systemMemoryByteCount >> 12) &* 16 &- 1)
        facts[.rmpConfiguration] = .number(0)
        facts[.kernelRelease] = .text("7.2.0-software")
        facts[.kernelOptions] = .text("")
        facts[.iommuCount] = .number(1)
        facts[.iommuDomain] = .text("DMA-FQ")
        facts[.ccpIsLoaded] = .flag(true)
        facts[.kvmAMDIsLoaded] = .flag(true)
        facts[.parameterSEV] = yes(.sev)
        facts[.parameterSEVES] = yes(.sevES)
        facts[.parameterSNP] = yes(.snp)
        facts[.nodeKVMMode] = .text("660")
        facts[.nodeSEVMode] = .text("660")
        facts[.userIsRoot] = .flag(false)
        facts[.userIsInKVMGroup] = .flag(true)
        facts[.capacitySEV] = .number(types.contains(.sev) ? memoryASIDs : 0)
        facts[.capacitySEVES] = .number(types.contains(.sevES) ? stateASIDs : 0)
        facts[.usedSEV] = .number(scenario.hasASIDsInUse ? memoryASIDs : 0)
        facts[.usedSEVES] = .number(scenario.hasASIDsInUse ? stateASIDs : 0)
        facts[.memoryTotal] = .number(configuration.systemMemoryByteCount)
        facts[.memoryAvailable] = .number(configuration.systemMemoryByteCount)
        facts[.hugePagesFree] = .number(0)
        facts[.limitMemoryLock] = .number(configuration.lockedMemoryLimit ?? .max)
        facts[.limitOpenFiles] = .number(UInt64(HandleTable.limit))
        facts.merge(scenario.facts)
        return facts
    }
}
