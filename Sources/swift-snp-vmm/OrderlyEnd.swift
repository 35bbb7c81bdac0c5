// What signals that end a process do to a run: the guest is asked to power off first, and ended when it does not.
//
//     signal      before the guest runs                while it runs
//     first       files of ours removed, and the end   its power button is pressed; the grace begins
//     second                                           it is ended at once
//     third       the process ends as if nobody cared  the same

import CProcess
import SNPVMM
import Sandbox
import Synchronization

/// Watches for SIGINT, SIGTERM and SIGHUP as long as the process lives.
final class OrderlyEnd: Sendable {
    private struct State {
        weak var machine: Machine?
        /// Why the machine was stopped, if it was because of a signal.
        var reason: String?
    }
    private let state = Mutex(State())
    private let graceSeconds: UInt16
    private let clean: @Sendable () -> Void

    /// - Parameters:
    ///   - graceSeconds: How long a guest that was asked may take.
    ///   - beforeAnyGuest: Takes away what would outlive a process that ends before ``follow(_:)``.
    init(graceSeconds: UInt16, beforeAnyGuest: @escaping @Sendable () -> Void) {
        self.graceSeconds = graceSeconds
        clean = beforeAnyGuest
        guard process_put_endings_off() == 0 else { return }
        // Without a thread nobody would hear of the signals: then they end the process as they always do.
        do { _ = try WorkerThread(.device) { self.watch() } } catch { process_let_endings_be() }
    }

    /// From here on the guest is asked first.
    func follow(_ machine: Machine) { state.withLock { $0.machine = machine } }

    /// How a run ended that nothing in the guest ended by itself.
    func reason(of outcome: RunOutcome) -> String? {
        let isAsked = process_ending_signal() != 0
        switch outcome {
        case .stopped: return state.withLock { $0.reason } ?? "ended by Ctrl-A x"
        case .powerOff where isAsked: return "powered off, as a signal asked"
        default: return nil
        }
    }

    private func watch() {
        _ = process_wait_for_endings(1, -1)
        guard let machine = state.withLock({ $0.machine }) else {
            clean()
            process_end_as_asked()
            return
        }
        stop(machine, because: ask(machine))
    }

    /// Returns when it is time to end the guest, with the reason.
    private func ask(_ machine: Machine) -> String {
        guard graceSeconds > 0 else { return "ended by a signal" }
        guard machine.pressPowerButton() else { return "ended by a signal: \(Console.nobodyListens)" }
        StandardError.write(
            line: "\rasked the guest to power off; it has \(graceSeconds) s, a second signal ends it at once\r")
        return process_wait_for_endings(2, Int32(graceSeconds) * 1000) > 1
            ? "ended by a second signal"
            : "ended by a signal: the guest did not power off within \(graceSeconds) s"
    }

    private func stop(_ machine: Machine, because reason: String) {
        state.withLock { $0.reason = reason }
        machine.stop()
    }
}
