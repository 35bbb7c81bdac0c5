// /dev/sev: the driver of the secure processor.

import KVMABI
import Testing

@Suite struct SEVDeviceTests {
    /// Issues a command; gives errno and firmware status.
    private func issue<S: KernelStructure>(
        _ kernel: any HostKernel, _ handle: KernelHandle, _ command: SEVDeviceCommand, _ data: inout S
    ) -> (errno: Errno?, status: UInt32) {
        withKernelAddress(of: &data) { (address: UInt64) in
            var envelope = SEVIssueCommand(command, data: address)
            do throws(Errno) {
                try kernel.call(handle, .sevIssueCommand, &envelope)
                return (nil, envelope.error)
            } catch {
                return (error, envelope.error)
            }
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `platform status`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let sev = try kernel.open(.sev)
        defer { kernel.close(sev) }
        var status = SEVUserStatus()
        #expect(issue(kernel, sev, .platformStatus, &status) == (nil, 0))
        #expect(status.apiMajor >= 1 && status.state <= 2)
        var snp = SNPUserStatus()
        #expect(issue(kernel, sev, .snpPlatformStatus, &snp) == (nil, 0))
        #expect(snp.apiMajor >= 1 && snp.state <= 1)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `unknown commands and requests are EINVAL`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let sev = try kernel.open(.sev)
        defer { kernel.close(sev) }
        for number: UInt32 in [13, 14, 99, .max] {
            var nothing: UInt64 = 0
            #expect(
                issue(kernel, sev, SEVDeviceCommand(rawValue: number), &nothing).errno == .EINVAL, "command \(number)")
        }
        var envelope = SEVIssueCommand(.snpPlatformStatus, data: 0)
        #expect(throws: Errno.EINVAL, "no buffer") { try kernel.call(sev, .sevIssueCommand, &envelope) }
        #expect(throws: Errno.EINVAL) { try kernel.call(sev, IoctlRequest(rawValue: 0xc010_5301), &envelope) }
        #expect(throws: Errno.EINVAL) { try kernel.call(sev, .getAPIVersion) }
    }
}
