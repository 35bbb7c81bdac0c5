// The words of /dev/sev-guest and the lengths of what goes with them, against CKVM's table.

import CKVM
import GuestAgent
import SEVABI
import Testing

@Suite struct DeviceTests {
    @Test func `requests are the kernel's`() {
        var constants: [String: UInt32] = [:]
        for index in 0..<ckvm_constant_count() {
            let entry = ckvm_constant_at(index)
            constants[String(cString: entry.name)] = entry.value
        }
        for operation in [SEVGuestRequest.Operation.report, .derivedKey, .extendedReport] {
            #expect(LinuxSEVGuestDriver.requestWord(operation) == constants[operation.name], "\(operation.name)")
        }
    }

    @Test func `answers have room for the kernel's structures`() {
        var lengths: [String: Int] = [:]
        for index in 0..<ckvm_field_count() {
            let entry = ckvm_field_at(index)
            if String(cString: entry.field).isEmpty { lengths[String(cString: entry.structure)] = Int(entry.value) }
        }
        #expect(SEVGuestRequest.Operation.report.responseByteCount == lengths["snp_report_resp"])
        #expect(SEVGuestRequest.Operation.extendedReport.responseByteCount == lengths["snp_report_resp"])
        #expect(SEVGuestRequest.Operation.derivedKey.responseByteCount == lengths["snp_derived_key_resp"])
    }
}
