// Control register and EFER bits [APM2 3.1].

public enum CR0 {
    public static let pe: UInt64 = 1, mp: UInt64 = 2, em: UInt64 = 4, ts: UInt64 = 8, et: UInt64 = 0x10
    public static let ne: UInt64 = 0x20, wp: UInt64 = 0x1_0000, am: UInt64 = 0x4_0000
    public static let nw: UInt64 = 0x2000_0000, cd: UInt64 = 0x4000_0000, pg: UInt64 = 0x8000_0000
}

public enum CR4 {
    public static let vme: UInt64 = 1, pvi: UInt64 = 2, tsd: UInt64 = 4, de: UInt64 = 8, pse: UInt64 = 0x10
    public static let pae: UInt64 = 0x20, mce: UInt64 = 0x40, pge: UInt64 = 0x80, pce: UInt64 = 0x100
    public static let osfxsr: UInt64 = 0x200, osxmmexcpt: UInt64 = 0x400, umip: UInt64 = 0x800
    public static let la57: UInt64 = 0x1000, fsgsbase: UInt64 = 0x1_0000, pcide: UInt64 = 0x2_0000,
        pke: UInt64 = 0x40_0000
    public static let osxsave: UInt64 = 0x4_0000, smep: UInt64 = 0x10_0000, smap: UInt64 = 0x20_0000
}

public enum EFER {
    public static let sce: UInt64 = 1, lme: UInt64 = 0x100, lma: UInt64 = 0x400, nxe: UInt64 = 0x800
    public static let svme: UInt64 = 0x1000, ffxsr: UInt64 = 0x4000
}
