import GuestImage
import KVMABI
import LaunchMeasurement
import SEVABI
import SNPVMM
import Synchronization
import Testing

@Suite struct LaunchLogTests {
    private final class Lines: Sendable {
        let lines = Mutex<[String]>([])
        var all: [String] { lines.withLock { $0 } }
    }

    /// A log whose digest is the measurement's.
    private func log(_ kernel: ScriptedKernel, _ plan: LaunchPlan, _ lines: Lines) -> LaunchLog {
        let running = Mutex(RunningLaunchDigest())
        return LaunchLog(
            kernel,
            digest: { measured in
                running.withLock { digest in
                    switch measured {
                    case .pages(let type, let gpa, let byteCount, let contents):
                        digest.extend(
                            LaunchPlan.Region(
                                label: "", pageType: type, gpa: gpa, byteCount: byteCount, contents: contents))
                    case .data: Issue.record("an SNP launch has no UPDATE_DATA")
                    case .processors:
                        for processor in plan.processors {
                            digest.extend(SealedState(of: processor, guestFeatures: plan.guestFeatures))
                        }
                    }
                    return "\(digest.digest)"
                }
            },
            write: { line in lines.lines.withLock { $0.append(line) } })
    }

    @Test func digestSoFarEndsAtTheMeasuredDigest() throws {
        let plan = samplePlan(normalByteCount: 3 << 20)
        for script: [ScriptedKernel.Update] in [
            [],
            [
                .pages(1), .pages(300), .refused(.EAGAIN, .success, pagesDone: 2),
                .refused(.EAGAIN, .success, pagesDone: 0),
            ],
        ] {
            let kernel = ScriptedKernel()
            kernel.state.withLock { $0.updates = script }
            let lines = Lines()
            _ = try launch(log(kernel, plan, lines), plan: plan)
            let measured = MeasuredLaunch(of: plan)
            let digests = lines.all.filter { $0.contains("launchDigest") }
            #expect(digests.last?.contains("\"request\":\"KVM_SEV_SNP_LAUNCH_FINISH\"") == true)
            #expect(digests.last?.contains("\"launchDigest\":\"\(measured.digest)\"") == true)
            // The digest after each region of the plan is there too.
            for step in measured.steps {
                #expect(digests.contains { $0.contains("\"launchDigest\":\"\(step.digest)\"") })
            }
        }
    }

    @Test func everyRequestIsOneLine() throws {
        let kernel = ScriptedKernel()
        let lines = Lines()
        let machine = try launch(log(kernel, samplePlan(), lines))
        #expect(lines.all.count >= kernel.log.count)
        for (index, line) in lines.all.enumerated() {
            #expect(line.hasPrefix("{\"sequence\":\(index + 1),\"request\":\"") && line.hasSuffix("}"))
            #expect(line.contains("\"nanoseconds\":") && line.contains("\"arguments\":{"))
            #expect(!line.contains("\n"))
        }
        func line(_ request: String) -> String { lines.all.first { $0.contains("\"request\":\"\(request)\"") } ?? "" }
        #expect(line("open").contains("\"node\":\"/dev/kvm\""))
        #expect(line("KVM_CREATE_VM").contains("\"value\":\"4\""))
        #expect(line("KVM_ENABLE_CAP").contains("\"capability\":\"KVM_CAP_EXIT_HYPERCALL\",\"argument\":\"0x1000\""))
        #expect(line("KVM_SET_MEMORY_ATTRIBUTES").contains("\"byteCount\":16777216,\"private\":true"))
        #expect(line("KVM_SET_REGS").contains("\"rip\":\"0x100200\""))
        #expect(line("KVM_SEV_SNP_LAUNCH_START").contains("\"policy\":\"0x30000\""))
        #expect(
            line("KVM_SEV_SNP_LAUNCH_UPDATE").contains(
                "\"gfn\":\"0x100\",\"byteCount\":12288,\"pageType\":\"NORMAL\""))
        _ = machine.run()
        #expect(line("KVM_RUN").contains("\"exit\":\"KVM_EXIT_SYSTEM_EVENT\""))
    }

    @Test func refusalsAreLoggedWithTheFirmwareStatus() {
        let kernel = ScriptedKernel()
        kernel.refuse("KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badMeasurement)
        let lines = Lines()
        #expect(throws: VMMError.self) { try launch(log(kernel, samplePlan(), lines)) }
        let line = lines.all.first { $0.contains("LAUNCH_FINISH") } ?? ""
        #expect(line.contains("\"errno\":\"EIO\""))
        #expect(line.contains("\"firmwareStatus\":\"BAD_MEASUREMENT (0xb)\""))
        #expect(!line.contains("launchDigest"))
    }

    @Test func theLogChangesNothing() throws {
        let plain = ScriptedKernel()
        _ = try launch(plain)
        let logged = ScriptedKernel()
        _ = try launch(log(logged, samplePlan(), Lines()))
        #expect(plain.log == logged.log)
        #expect(
            plain.state.withLock { $0.launched.map(\.contents) }
                == logged.state.withLock { $0.launched.map(\.contents) })
    }

    @Test func stringsAreQuoted() {
        #expect(JSONObject.quote("a\"b\\c\n\u{1}é") == "\"a\\\"b\\\\c\\n\\u0001é\"")
    }
}
