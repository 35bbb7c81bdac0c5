// `measure`: the launch digest of the same options, with no kernel and no firmware asked.

import ArgumentParser
import GuestImage
import LaunchMeasurement
import SEVABI
import SNPVMM

struct Measure: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prints the launch digest that a guest owner should expect.",
        discussion: """
            The same image and options as `run` give the digest that the firmware holds after the launch: SHA-384 for \
            snp, SHA-256 for sev-es and sev. The measurement that LAUNCH_MEASURE reports is made from it by `owner expect`.

            Example: swift-snp-vmm measure guest.img --memory 512M --json
            Example: swift-snp-vmm measure guest.img --confidential sev-es
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

    func run() throws {
        guard let profile = VMMProfile(rawValue: profile.lowercased()) else {
            let names = VMMProfile.allCases.map(\.rawValue).joined(separator: ", ")
            throw CommandFailure.usage("--vmm-profile \(profile): expected one of \(names)")
        }
        let technology = try guest.requiredTechnology()
        let machine = try guest.machine()
        let identity = try guest.identity()
        let source = try GuestSource(guest)
        if profile != .qemu, !source.isFirmware {
            throw CommandFailure.usage(
                "--vmm-profile \(profile.rawValue) is about firmware images; this is a \(source.form)")
        }
        let plan = try source.measurablePlan(
            on: machine, profile: profile, zeroPages: nativeZero ? .native : .measured)
        let measured = MeasuredLaunch(of: plan)
        print(json ? Self.json(measured, plan, source, machine) : measured.digestText)
        if technology == .snp, let block = identity.identityBlock?.block, block.launchDigest != measured.digest {
            StandardError.write(line: "note: the ID block was made for another launch digest, \(block.launchDigest)")
        }
        if case .igvm(let file) = source {
            for digest in file.identityDigests(for: technology) where digest.description != measured.digestText {
                StandardError.write(line: "note: the file's ID block was made for another launch digest, \(digest)")
            }
        }
    }

    private static func json(
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
            measured.steps.map { step in
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
                return entry
            })
        return object.text
    }
}
