// The driver's answers, good and bad, as the agent's user sees them.

import GuestAgent
import KVMABI
import SEVABI
import Testing

struct SEVGuestTests {
    let data = [UInt8](1...64)

    @Test func aReportIsHandedOnAsItCame() throws {
        let driver = FakeDriver()
        let report = try SEVGuest(driver).report(ReportRequest(reportData: data, vmpl: 1))
        #expect(report.count == 0x4a0)
        #expect(Array(report[0x50..<0x90]) == data)
        #expect(
            driver.requests == [
                SEVGuestRequest(
                    operation: .report, messageVersion: 1,
                    payload: ReportRequest(reportData: data, vmpl: 1).bytes, certificateByteCount: 0)
            ])
    }

    /// A hypervisor with more certificates than the first request has room for.
    @Test func moreRoomIsOfferedOnce() throws {
        let tooSmall = SEVGuestReply(
            errno: .EIO, exitInformation: 1 << 32, payload: [], neededCertificateByteCount: 0x5000)
        let driver = FakeDriver([tooSmall])
        let (report, certificates) = try SEVGuest(driver).extendedReport(ReportRequest(reportData: data))
        #expect(report.count == 0x4a0)
        #expect(certificates.count == 0x5000)
        #expect(driver.requests.map(\.certificateByteCount) == [0x4000, 0x5000])

        let stubborn = FakeDriver([tooSmall, tooSmall])
        let error = #expect(throws: AgentError.self) {
            try SEVGuest(stubborn).extendedReport(ReportRequest(reportData: data))
        }
        #expect(error?.description.contains("room for 20480 bytes") == true)
        #expect(stubborn.requests.count == 2)
    }

    @Test func anEmptyTableIsNone() throws {
        var reply = FakeDriver.reply(reportData: data)
        reply.certificates = [UInt8](repeating: 0, count: 0x4000)
        let answer = try SEVGuest(FakeDriver([reply])).extendedReport(ReportRequest(reportData: data))
        #expect(answer.certificates.isEmpty)
    }

    @Test func aDerivedKey() throws {
        let key = [UInt8](100..<132)
        let driver = FakeDriver([SEVGuestReply(payload: KeyResponse(key: key).bytes)])
        let request = KeyRequest(fields: .measurement, guestSVN: 3)
        #expect(try SEVGuest(driver).derivedKey(request).copied() == key)
        #expect(driver.requests.first?.operation == .derivedKey)
        #expect(driver.requests.first?.payload == request.bytes)
    }

    /// A reply, and what the agent says about it.
    struct Failure: CustomTestStringConvertible {
        var reply: SEVGuestReply
        var text: String

        init(_ errno: Errno, _ exitInformation: UInt64, _ text: String) {
            reply = SEVGuestReply(errno: errno, exitInformation: exitInformation, payload: [])
            self.text = text
        }

        init(payload: [UInt8], _ text: String) {
            reply = SEVGuestReply(payload: payload)
            self.text = text
        }

        var testDescription: String { text }
    }

    /// Each way to fail is told apart.
    @Test(arguments: [
        Failure(.EIO, 2 << 32, "the hypervisor is busy"),
        Failure(.EIO, 9 << 32, "hypervisor status 9"),
        Failure(.ENOTTY, 0xff, "given up its key"),
        Failure(.ENOTTY, 0xffff_ffff, "given up its key"),
        Failure(.EIO, 0x16, "INVALID_PARAM"),
        Failure(payload: ReportResponse(status: .invalidParameters).bytes, "INVALID_PARAM"),
        Failure(payload: ReportResponse(status: .invalidKey).bytes, "INVALID_KEY"),
        Failure(payload: ReportResponse(status: .init(rawValue: 0x99)).bytes, "0x99"),
        Failure(payload: [], "no MSG_REPORT_RSP in 0 bytes"),
        Failure(payload: [UInt8](repeating: 0, count: 4000), "a report of 0 bytes"),
        Failure(payload: [UInt8](repeating: 0xff, count: 4000), "no MSG_REPORT_RSP"),
    ])
    func failures(_ failure: Failure) {
        let error = #expect(throws: AgentError.self) {
            try SEVGuest(FakeDriver([failure.reply])).report(ReportRequest(reportData: data))
        }
        #expect(error?.status == .refused)
        #expect(error?.description.contains(failure.text) == true, "\(String(describing: error))")
    }

    @Test func aKeyThatTheFirmwareRefuses() {
        let reply = SEVGuestReply(payload: KeyResponse(status: .invalidKey).bytes)
        let error = #expect(throws: AgentError.self) { try SEVGuest(FakeDriver([reply])).derivedKey(KeyRequest()) }
        #expect(error?.description.contains("INVALID_KEY") == true)
    }
}
