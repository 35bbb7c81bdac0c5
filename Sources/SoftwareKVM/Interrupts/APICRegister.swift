// Numbers of the local APIC: register offsets and delivery modes.

/// Register offsets of the xAPIC page [APM2 16.3.2]. An x2APIC MSR is 0x800 + offset / 16.
enum APICRegister {
    static let id = 0x20, version = 0x30, taskPriority = 0x80, arbitrationPriority = 0x90, processorPriority = 0xa0
    static let eoi = 0xb0, remoteRead = 0xc0, logicalDestination = 0xd0, destinationFormat = 0xe0, spurious = 0xf0
    static let inService = 0x100, triggerMode = 0x180, interruptRequest = 0x200, errorStatus = 0x280
    static let lvtCMCI = 0x2f0, commandLow = 0x300, commandHigh = 0x310
    static let lvtTimer = 0x320, lvtThermal = 0x330, lvtPerformance = 0x340, lvtLINT0 = 0x350, lvtLINT1 = 0x360
    static let lvtError = 0x370, timerInitial = 0x380, timerCurrent = 0x390, timerDivide = 0x3e0, selfIPI = 0x3f0
}

/// Delivery modes of ICR, LVT, I/O APIC and MSI [APM2 16.5].
enum DeliveryMode: UInt8 {
    case fixed = 0
    case lowestPriority = 1
    case smi = 2
    case nmi = 4
    case initialize = 5
    case startup = 6
    case external = 7
}
