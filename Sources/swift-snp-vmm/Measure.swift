// `measure`: the launch digest of the same options, with no kernel and no firmware asked.

import ArgumentParser
import GuestImage
import LaunchMeasurement
import SEVABI
import SNPVMM

struct Measure: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure", abstract: "Prints the launch digest that a guest owner should expect.",
        discussion: """
            The same image and options as `run` give the digest that the firmware holds after the launch: SHA-384 for \
            snp, SHA-256 for sev-es and sev. The measurement that LAUNCH_MEASURE reports is made from it by `owner expect`.

            --explain says where two launches differ: which page, register, feature bit, vCPU count or CPU signature. Each \
            side is an image with its options (as one word in quotes), a launch log of `run --launch-log`, a saved plan \
            (`measure --json --pages`), or an attestation report. A report has the digest alone: against a plan, the likely \
            changes to it are tried until one gives that digest. Exit status 0: the same digest; 5: another one.

            Example: swift-snp-vmm measure guest.img --memory 512M --json
            Example: swift-snp-vmm measure guest.img --confidential sev-es
            Example: swift-snp-vmm measure --explain 'OVMF.fd --cpus 4' report.bin
            """)

    @OptionGroup var guest: GuestOptions
    @Option(
        name: .customLong("vmm-profile"),
        help: ArgumentHelp(
            "Whose VMSA conventions a firmware image is measured with: qemu, ec2 or gce.", valueName: "name"))
    var profile = "qemu"
    @Flag(
        name: .customLong("native-zero"),
        help: "IGVM: pages without data are loaded as the firmware's ZERO pages, not as measured pages of zeroes.")
    var nativeZero = false
    @Flag(help: "Prints every step as JSON.")
    var json = false
    @Flag(help: "With --json: the digest of every page, and the VMSAs, for --explain.")
    var pages = false
    @Option(
        parsing: .remaining,
        help: ArgumentHelp("Says where two launches differ. Two of them, behind all options.", valueName: "launch"))
    var explain: [String] = []

    func validate() throws {
        if !explain.isEmpty, explain.count != 2 {
            throw ValidationError("--explain: give two launches, and options before it.")
        }
        if !explain.isEmpty, guest.namesImage {
            throw ValidationError("--explain names both launches: leave IMAGE, --kernel and --firmware out.")
        }
        if pages, !json { throw ValidationError("--pages goes with --json.") }
    }

    func run() throws {
        guard explain.isEmpty else { return try printExplanation() }
        let technology = try guest.requiredTechnology()
        let machine = try guest.machine()
        let identity = try guest.identity()
        let source = try GuestSource(guest)
        let plan = try plan(of: source, on: machine)
        let measured = MeasuredLaunch(of: plan)
        print(json ? json(measured, plan, source, machine) : measured.digestText)
        if technology == .snp, let block = identity.identityBlock?.block, block.launchDigest != measured.digest {
            StandardError.write(line: "note: the ID block was made for another launch digest, \(block.launchDigest)")
        }
        if case .igvm(let file) = source {
            for digest in file.identityDigests(for: technology) where digest.description != measured.digestText {
                StandardError.write(line: "note: the file's ID block was made for another launch digest, \(digest)")
            }
        }
    }

    /// The plan that these options ask for.
    func plan(of source: GuestSource, on machine: MachineDescription) throws -> LaunchPlan {
        guard let profile = VMMProfile(rawValue: profile.lowercased()) else {
            let names = VMMProfile.allCases.map(\.rawValue).joined(separator: ", ")
            throw CommandFailure.usage("--vmm-profile \(profile): expected one of \(names)")
        }
        if profile != .qemu, !source.isFirmware {
            throw CommandFailure.usage(
                "--vmm-profile \(profile.rawValue) is about firmware images; this is a \(source.form)")
        }
        return try source.measurablePlan(
            on: machine, profile: profile, zeroPages: nativeZero ? .native : .measured)
    }

    private func printExplanation() throws {
        let explanation = try Explanation(
            ExplainedSide(explain[0], options: self), ExplainedSide(explain[1], options: self))
        print(json ? explanation.json : explanation.text)
        if !explanation.isSame { throw ExitCode(VMMExitStatus.launchRefused.rawValue) }
    }

    private func json(
        _ measured: MeasuredLaunch, _ plan: LaunchPlan, _ source: GuestSource, _ machine: MachineDescription
    ) -> String {
        var object = JSONObject()
        object.add("launchDigest", measured.digestText)
        object.add("technology", measured.technology.rawValue)
        object.add("image", source.form)
        object.add("memoryByteCount", machine.memoryByteCount)
        object.add("processorCount", machine.processorCount)
        object.add("cBit", machine.cBit)
        object.add("policy", hex: plan.policy)
        object.add("guestFeatures", hex: plan.guestFeatures)
        object.add(
            "steps",
            measured.steps.enumerated().map { index, step in
                var entry = JSONObject()
                entry.add("label", step.label)
                entry.add("pageType", "\(step.pageType)")
                entry.add("gpa", hex: step.gpa)
                if measured.technology == .snp {
                    entry.add("pageCount", step.pageCount)
                } else {
                    entry.add("byteCount", step.byteCount)
                }
                entry.add("launchDigest", step.digestText)
                if let contents = step.contentsDigest { entry.add("contentsDigest", "\(contents)") }
                if pages { addPages(of: plan, index, to: &entry) }
                return entry
            })
        return object.text
    }

    /// What `--explain` compares saved plans by.
    private func addPages(of plan: LaunchPlan, _ step: Int, to entry: inout JSONObject) {
        guard step < plan.regions.count else {
            let state = SealedState(of: plan.processors[step - plan.regions.count], guestFeatures: plan.guestFeatures)
            entry.add("vmsa", state.digits)
            return
        }
        let region = plan.regions[step]
        if region.pageType == .vmsa {
            entry.add("vmsa", SealedState.digits(of: region.contents))
        } else if region.pageType.measuresContents {
            entry.add("pageDigests", PageDigests.text(PageDigests.of(region.contents)))
        }
    }
}
