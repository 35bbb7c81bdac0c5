// Refusals that come by script: counted, request by request.

import KVMABI
import SEVABI
import Synchronization

final class ScriptedAnswers: Sendable {
    private let answers: [HostScenario.ScriptedAnswer]
    /// How often each was asked for.
    private let counts: Mutex<[UInt64]>

    init(_ answers: [HostScenario.ScriptedAnswer]) {
        self.answers = answers
        counts = Mutex([UInt64](repeating: 0, count: answers.count))
    }

    /// What a request by one of these names is refused with; nil where it goes through.
    func refusal(of names: @autoclosure () -> [String]) -> EncryptFailure? {
        guard !answers.isEmpty else { return nil }
        let names = names()
        return counts.withLock { counts in
            for (index, answer) in answers.enumerated() where names.contains(answer.request) {
                let call = counts[index]
                counts[index] = call &+ 1
                guard call >= answer.after else { continue }
                let (turn, rest) = (call &- answer.after).quotientAndRemainder(dividingBy: answer.every)
                guard rest == answer.every &- 1, turn < answer.times ?? .max else { continue }
                return EncryptFailure(answer.errno, SEVStatus(rawValue: answer.firmwareStatus.rawValue))
            }
            return nil
        }
    }
}
