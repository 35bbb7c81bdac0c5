import SNPVMM
import Testing

@Suite struct GuestTerminationTests {
    @Test func everyMSRValueDecodesOrNot() {
        for set in UInt64(0)...15 {
            for reason in UInt64(0)...255 {
                let termination = GuestTermination(ghcbMSR: 0x100 | set << 12 | reason << 16, readGHCB: { _ in nil })
                #expect(termination == GuestTermination(reasonSet: UInt8(set), reason: UInt8(reason)))
                #expect(termination?.description.isEmpty == false)
                #expect(termination?.likelyCause.isEmpty == false)
            }
        }
        #expect(GuestTermination(ghcbMSR: 0x001, readGHCB: { _ in [] }) == nil)
        #expect(GuestTermination(ghcbMSR: 0x5000, readGHCB: { _ in nil }) == nil)
    }

    @Test func ghcbPagesThatAreNotTerminationsAreNot() {
        for byteCount in [0, 1, 0x390, 0x39f, 4096] {
            #expect(
                GuestTermination(ghcbMSR: 0x5000, readGHCB: { _ in [UInt8](repeating: 0xff, count: byteCount) }) == nil)
        }
    }

    @Test func linuxReasonsHaveNames() {
        #expect(
            GuestTermination(reasonSet: 1, reason: 2).description
                == "reason 1/2 (Linux: PVALIDATE failed or changed nothing)")
        #expect(GuestTermination(reasonSet: 1, reason: 77).description == "reason 1/77 (Linux: not a defined reason)")
        #expect(GuestTermination(reasonSet: 5, reason: 1).description == "reason 5/1 (set 5: not a defined reason)")
    }
}
