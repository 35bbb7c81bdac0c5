// `platform set-tcb`: what a host's administrator and a new firmware do to the platform's security versions.

import ArgumentParser
import Attestation
import KVMABI
import SEVABI
import SNPVMM
import SoftwarePSP

/// `on` or `off`.
enum Toggle: String, ExpressibleByArgument, CaseIterable {
    case on, off
}

extension Platform {
    struct SetTCB: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "set-tcb",
            abstract: "Changes the platform's TCB versions, and what reports say of them.",
            discussion: """
                There are three versions, reported ≤ committed ≤ current in every component. Current is what runs; committed \
                cannot be rolled back any more; reported is what reports are signed for: another one is another VCEK. \
                Versions are written as `platform show` prints them, such as snpSPL=24,ucodeSPL=219; a component that is not \
                named stays as it is.

                --reported, --commit and the masks ask the firmware (SNP_SET_CONFIG, SNP_COMMIT) and work on real platforms. \
                --current and --committed play a new firmware, and are for software platforms only. A guest that runs keeps \
                the versions of its start.

                Example: swift-snp-vmm platform set-tcb --current snpSPL=25 --commit
                Example: swift-snp-vmm platform set-tcb --reported snpSPL=23
                Example: swift-snp-vmm platform set-tcb --reported committed --mask-chip-id on
                """)

        @OptionGroup var options: PlatformOptions
        @Option(
            help: ArgumentHelp("The version that runs, as if another firmware were installed.", valueName: "versions"))
        var current: String?
        @Option(
            help: ArgumentHelp(
                "The version that cannot be rolled back any more. What is reported stays.", valueName: "versions"))
        var committed: String?
        @Flag(help: "SNP_COMMIT: commits the current version, and reports it.")
        var commit = false
        @Option(help: ArgumentHelp("The version in reports, or \"committed\".", valueName: "versions"))
        var reported: String?
        @Option(name: .customLong("mask-chip-id"), help: "Reports have no chip id: on or off.")
        var maskChipID: Toggle?
        @Option(name: .customLong("mask-chip-key"), help: "Reports are not signed with the VCEK: on or off.")
        var maskChipKey: Toggle?

        func validate() throws {
            if [current, committed, reported].allSatisfy({ $0 == nil }), !commit, maskChipID == nil, maskChipKey == nil
            {
                throw ValidationError("Give at least one version or mask to change.")
            }
            if commit, committed != nil { throw ValidationError("--commit and --committed exclude each other.") }
        }

        func run() throws {
            if current != nil || committed != nil { try changeFirmware() }
            let platform = try options.open()
            if commit { try platform.device.commitSNP() }
            if reported != nil || maskChipID != nil || maskChipKey != nil { try configure(platform) }
            let status = try platform.device.snpStatus()
            print("current TCB:   \(platform.text(status.currentTCB))")
            if let settings = try platform.software.map({ _ in try SoftwarePlatform(options.state.path).settings }) {
                print("committed TCB: \(platform.text(settings.committedTCB.rawValue))")
            }
            print("reported TCB:  \(platform.text(status.reportedTCB))")
        }

        /// --current and --committed: the software platform's storage, as that of a machine that is switched off.
        private func changeFirmware() throws {
            guard let software = try options.open().software else {
                throw CommandFailure.usage(
                    "--current and --committed are for software platforms: a real one's current version is that of its "
                        + "firmware, and --commit commits it")
            }
            if let current {
                let wanted = try Versions(current, "--current", software.settings.product.line)
                let status = try change(software) { $0.install(wanted.replacing(in: $0.currentTCB)) }
                try Self.check(
                    status, "install a firmware", "DOWNLOAD_FIRMWARE_EX", current,
                    status == .badSVN
                        ? "a component below the committed version, which cannot be rolled back"
                        : "a component that the product does not have",
                    "look at the versions with `platform show`")
            }
            if let committed {
                let wanted = try Versions(committed, "--committed", software.settings.product.line)
                let status = try change(software) { $0.commit(upTo: wanted.replacing(in: $0.committedTCB)) }
                try Self.check(
                    status, "commit a version", "SNP_COMMIT", committed,
                    status == .badSVN
                        ? "a component below what is committed already" : "a component above the current version",
                    "look at the versions with `platform show`; --current raises the current one")
            }
        }

        private func change(
            _ software: SoftwarePlatform, _ change: (inout PlatformSettings) -> SEVStatus
        ) throws(CommandFailure) -> SEVStatus {
            do { return try software.storage.changeSettings(change) } catch { throw software.folder.explained(error) }
        }

        private static func check(
            _ status: SEVStatus, _ step: String, _ request: String, _ versions: String, _ cause: String, _ next: String
        ) throws(VMMError) {
            guard status != .success else { return }
            throw VMMError(
                .hostCannot, step: step, request: request, context: versions,
                firmwareStatus: FirmwareStatus(rawValue: status.rawValue), likelyCause: cause, nextStep: next)
        }

        /// --reported and the masks: SNP_SET_CONFIG, which sets all three, so the others are given as they are.
        private func configure(_ platform: OpenPlatform) throws {
            let status = try platform.device.snpStatus()
            var tcb = status.reportedTCB
            if let reported {
                if reported == "committed" {
                    tcb = 0
                } else {
                    guard let line = platform.line else {
                        throw CommandFailure(
                            status: .hostCannot,
                            message: "could not set the reported TCB: the processor is \(platform.processor), expected "
                                + "Milan, Genoa or Turin. Likely cause: a newer product. Next step: update this program."
                        )
                    }
                    tcb = try Versions(reported, "--reported", line).replacing(in: TCBVersion(rawValue: tcb)).rawValue
                }
            }
            try platform.device.configureSNP(
                reportedTCB: tcb, masksChipID: maskChipID.map { $0 == .on } ?? (status.flags & 1 != 0),
                masksChipKey: maskChipKey.map { $0 == .on } ?? (status.flags & 2 != 0))
        }
    }
}

/// Components of a TCB version on the command line.
private struct Versions {
    let line: ProductLine
    let components: [String: UInt8]

    init(_ text: String, _ option: String, _ line: ProductLine) throws(CommandFailure) {
        let known = SecurityVersions(tcbVersion: 0, of: line).map { $0.components.map(\.name) } ?? []
        guard let components = CertificateSelection.versions(text), components.keys.allSatisfy(known.contains) else {
            throw .usage(
                "\(option) \(text): expected components of \(line) with values up to 255, among them "
                    + known.map { "\($0)=…" }.joined(separator: ","))
        }
        self.line = line
        self.components = components
    }

    /// What is not named stays.
    func replacing(in tcb: TCBVersion) -> TCBVersion {
        guard var versions = SecurityVersions(tcbVersion: tcb.rawValue, of: line) else { return tcb }
        if let value = components["fmcSPL"] { versions.fmc = value }
        versions.bootLoader = components["blSPL"] ?? versions.bootLoader
        versions.tee = components["teeSPL"] ?? versions.tee
        versions.snp = components["snpSPL"] ?? versions.snp
        versions.microcode = components["ucodeSPL"] ?? versions.microcode
        return TCBVersion(rawValue: versions.tcbVersion(of: line))
    }
}
