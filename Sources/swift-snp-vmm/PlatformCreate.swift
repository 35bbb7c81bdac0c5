// `platform create`: a software platform of a product, made once.

import ArgumentParser
import Attestation
import SEVABI
import SoftwarePSP

extension Platform {
    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Makes the software platform: its chip, keys and manufacturer.",
            discussion: """
                Commands that need a software platform make one when there is none: a Milan. This one makes it and refuses when \
                there is one already.

                Example: swift-snp-vmm platform create --product genoa --platform-state lab
                """)

        @OptionGroup var state: PlatformStateOption
        @Option(help: "The processor: milan, genoa or turin.")
        var product = "milan"
        @Option(
            name: .customLong("report-version"),
            help: ArgumentHelp(
                "Has firmware that makes attestation reports of this version: 2, 3 or 5. (default: 3; on Turin 5)",
                valueName: "version"))
        var reportVersion: UInt32?
        @Option(
            help: ArgumentHelp(
                "Makes the same platform for the same text, for tests: nothing about it is secret.", valueName: "text"))
        var seed: String?

        func run() throws {
            let settings = try wantedSettings()
            let folder = try PlatformStateFolder(state.path)
            guard !folder.hasPlatform else {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not make a software platform in \(folder.path): there is one already. Next step: use it, "
                        + "choose another folder with --platform-state, or remove that one (sessions made for it will be "
                        + "refused, and its reports cannot be verified any more).")
            }
            let storage = try folder.storage(seed: seed, settings: settings)
            _ = try folder.manufacturerSeed(seed: seed)
            // Of two that were started at once, one has made it.
            guard storage.settings == settings else {
                throw CommandFailure(
                    status: .badInput,
                    message: "could not make a software platform in \(folder.path): another process has just made one "
                        + "there. Next step: look at it with `platform show`.")
            }
            print("made a software platform (\(settings.product.rawValue)) in \(folder.path); it protects nothing")
        }

        private func wantedSettings() throws(CommandFailure) -> PlatformSettings {
            if let reportVersion, ![2, 3, 5].contains(reportVersion) {
                throw .usage("--report-version \(reportVersion): expected 2, 3 or 5")
            }
            let name = product.lowercased()
            let products = ProcessorProduct.allCases
            guard let product = products.first(where: { $0.rawValue.lowercased() == name }) else {
                let known = products.map { $0.rawValue.lowercased() }.joined(separator: ", ")
                throw .usage(
                    ["siena", "bergamo"].contains(name)
                        ? "--product \(name): its authorities and formats are Genoa's: give genoa"
                        : name == "venice"
                            ? "--product venice: its TCB_VERSION and certificates are not public; expected one of \(known)"
                            : "--product \(self.product): expected one of \(known)")
            }
            return PlatformSettings(of: product, reportVersion: reportVersion)
        }
    }
}
