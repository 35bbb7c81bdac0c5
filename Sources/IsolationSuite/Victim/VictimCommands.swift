// What a victim can be told to do, and its answers. The mailbox is shared memory: the host sees all of it, and so does
// the attacker; nothing secret goes through it but what a scenario wants the guest to hold.

import KVMABI

/// The commands of Firmware/victim/victim.s, in its order.
enum VictimCommand {
    case idle
    /// Fills a page with a pattern.
    case fill(page: Int, Pattern)
    /// Compares a page with a pattern.
    case check(page: Int, Pattern)
    case read(address: UInt64)
    case write(address: UInt64, UInt64)
    /// Keeps a number and its successors in R12 to R15, and gives the host a turn meanwhile.
    case hold(UInt64)
    /// CPUID from the most trustworthy source there is.
    case cpuid(function: UInt32, index: UInt32)
    /// CPUID as the host answers it.
    case askHostForCPUID(function: UInt32)
    case validate(page: Int, Bool)
    /// Asks the host to make a page private (or shared).
    case pageState(page: Int, isPrivate: Bool)
    /// Exceptions that came from nowhere.
    case events
    /// What the guest was launched with.
    case marks

    /// Number and arguments.
    var words: [UInt64] {
        switch self {
        case .idle: [0]
        case .fill(let page, let pattern): [1, VictimLayout.page(page), pattern.seed]
        case .check(let page, let pattern): [2, VictimLayout.page(page), pattern.seed]
        case .read(let address): [3, address]
        case .write(let address, let word): [4, address, word]
        case .hold(let word): [5, word]
        case .cpuid(let function, let index): [6, UInt64(function), UInt64(index)]
        case .askHostForCPUID(let function): [7, UInt64(function), 0]
        case .validate(let page, let on): [8, VictimLayout.page(page), on ? 1 : 0]
        case .pageState(let page, let isPrivate): [9, VictimLayout.page(page), isPrivate ? 1 : 2]
        case .events: [10]
        case .marks: [11]
        }
    }
}

/// What the guest reports after a command.
struct VictimReply: Equatable {
    var results: [UInt64]
    /// The exception that ended the command.
    var fault: VictimFault?
}

/// An exception as the guest saw it.
struct VictimFault: Equatable, CustomStringConvertible {
    var vector: UInt64
    var errorCode: UInt64
    var rip: UInt64

    /// #VC because the page is not validated [APM2 15.36.7].
    var isNotValidated: Bool { vector == 29 && errorCode == 0x404 }

    var description: String {
        let names: [UInt64: String] = [6: "#UD", 13: "#GP", 14: "#PF", 29: "#VC"]
        return "\(names[vector] ?? "exception \(vector)") with error code \(hex(errorCode))"
    }
}

/// How a command ended.
enum VictimResponse: Equatable {
    case reply(VictimReply)
    /// The guest did not come back from it.
    case stopped(VictimMachine.Ending)
}

extension VictimMachine {
    /// Gives the guest a command and runs it.
    func tell(_ command: VictimCommand) throws(Interruption) -> VictimResponse {
        post(command)
        let ending = try resume()
        return ending == .doorbell ? .reply(reply) : .stopped(ending)
    }

    /// Puts a command into the mailbox; the guest finds it when it runs.
    func post(_ command: VictimCommand) {
        let mailbox = Int(VictimLayout.mailbox)
        let words = command.words
        for index in 0..<4 { ram.store(index < words.count ? words[index] : 0, at: mailbox + 8 * index) }
    }

    /// The mailbox as the guest left it.
    var reply: VictimReply {
        func word(_ offset: Int) -> UInt64 { ram.load(at: Int(VictimLayout.mailbox) + offset) }
        let vector = word(96)
        return VictimReply(
            results: (0..<4).map { word(64 + 8 * $0) },
            fault: vector == 0 ? nil : VictimFault(vector: vector &- 1, errorCode: word(104), rip: word(112)))
    }

    /// A command that the guest must get through: its results.
    @discardableResult
    func perform(_ command: VictimCommand) throws(Interruption) -> [UInt64] {
        switch try tell(command) {
        case .reply(let reply):
            if let fault = reply.fault { throw .broken("the guest got \(fault) while it did \(command)") }
            return reply.results
        case .stopped(let ending): throw .broken("the guest did not come back from \(command): \(ending)")
        }
    }

    /// How a page compares with a pattern, as the guest sees it.
    enum PageView: Equatable, CustomStringConvertible {
        case same
        /// Words that differ, and the first of them.
        case differs(words: UInt64, first: UInt64, index: UInt64)
        case fault(VictimFault)
        case stopped(Ending)

        var description: String {
            switch self {
            case .same: "every word is as expected"
            case .differs(let words, let first, let index):
                "\(words) of 512 words differ; word \(index) is \(hex(first))"
            case .fault(let fault): "\(fault)"
            case .stopped(let ending): "\(ending)"
            }
        }
    }

    /// What an attack on the contents of a page came to.
    ///
    /// - Parameters:
    ///   - view: How the page compares with what the attacker wants it to hold.
    ///   - own: What the guest has put there. A page that holds neither is no success of the guest's.
    func effect(of view: PageView, onPage page: Int, holding own: Pattern) throws(Interruption) -> Effect {
        switch view {
        case .same: .notStopped
        case .stopped: .stopped
        case .fault: .detected
        case .differs: try look(atPage: page, for: own) == .same ? .stopped : .notStopped
        }
    }

    /// Has the guest compare a page with a pattern.
    func look(atPage page: Int, for pattern: Pattern) throws(Interruption) -> PageView {
        switch try tell(.check(page: page, pattern)) {
        case .stopped(let ending): return .stopped(ending)
        case .reply(let reply):
            if let fault = reply.fault { return .fault(fault) }
            let results = reply.results
            return results[0] == 0 ? .same : .differs(words: results[0], first: results[1], index: results[2])
        }
    }
}
