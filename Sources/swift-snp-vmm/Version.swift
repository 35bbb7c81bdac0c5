// `version`: which build this is.

import ArgumentParser

struct Version: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Prints the version.")

    /// The version of this package.
    static let number = "0.1.0"

    func run() {
        print("swift-snp-vmm \(Self.number)")
    }
}
