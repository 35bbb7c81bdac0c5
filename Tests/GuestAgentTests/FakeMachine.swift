// A machine for the agent: a firmware that answers as it is told, an owner in this process, files and programs that are
// only remembered.

import GuestAgent
import KVMABI
import SEVABI
import SecretRelease
import Synchronization

/// A driver that answers from a list, and remembers what it was asked.
final class FakeDriver: SEVGuestDriver {
    var replies: [SEVGuestReply]
    var requests: [SEVGuestRequest] = []

    init(_ replies: [SEVGuestReply] = []) { self.replies = replies }

    /// The next reply of the list; without one a report for what is asked, as the driver pads it.
    func send(_ request: SEVGuestRequest) -> SEVGuestReply {
        requests.append(request)
        if !replies.isEmpty { return replies.removeFirst() }
        return Self.reply(reportData: Array(request.payload.prefix(64)), certificates: request.certificateByteCount)
    }

    static func reply(reportData: [UInt8], certificates: Int = 0) -> SEVGuestReply {
        var body = AttestationReportBody(version: 3)
        body.reportData = reportData
        let payload = ReportResponse(report: body.report(signature: nil)).bytes
        return SEVGuestReply(
            payload: payload + [UInt8](repeating: 0, count: 4000 - payload.count),
            certificates: [UInt8](repeating: certificates > 0 ? 7 : 0, count: certificates))
    }
}

final class FakeMachine: AgentMachine {
    let fakeDriver: FakeDriver
    var stream: (any OwnerStream)?
    var files: [String: [UInt8]] = [:]
    var programs: [(arguments: [String], input: [UInt8])] = []
    var programStatus: Int32 = 0
    var output = ""

    init(_ driver: FakeDriver = FakeDriver(), owner: (any OwnerStream)? = nil) {
        fakeDriver = driver
        stream = owner
    }

    func driver() throws(AgentError) -> any SEVGuestDriver { fakeDriver }

    func connect(to owner: OwnerAddress) throws(AgentError) -> any OwnerStream {
        guard let stream else {
            throw AgentError(
                .unavailable, attempt: "reach the owner", subject: "\(owner)", found: "none", likelyCause: "-",
                nextStep: "-")
        }
        return stream
    }

    func write(_ bytes: [UInt8], to path: String) throws(AgentError) { files[path] = bytes }

    func run(_ program: [String], input: [UInt8]) throws(AgentError) -> Int32 {
        programs.append((program, input))
        return programStatus
    }

    func say(_ text: String) { output += text }

    /// The agent with these arguments: its exit status.
    func run(_ arguments: String...) throws(AgentError) -> Int32 {
        try Agent(on: self).run(AgentCommand(arguments))
    }
}
