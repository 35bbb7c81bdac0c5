// The options that say which guest is launched: the same for `run`, `measure` and the owner's commands, so that all of them
// make the same plan.

import ABILayout
import ArgumentParser
import GuestImage
import SEVABI
import SNPVMM
import X86Defs

/// `--confidential`.
enum Confidentiality: String, ExpressibleByArgument, CaseIterable {
    case snp
    case sevES = "sev-es"
    case sev
    case none

    /// Nil for a plain guest.
    var technology: GuestTechnology? { GuestTechnology(rawValue: rawValue) }
}

/// `--machine`.
enum MachineChoice: String, ExpressibleByArgument, CaseIterable {
    /// Our own: it boots kernels directly, and has ACPI and virtio.
    case standard = "default"
    /// Nothing but a PC's interrupt parts, for test images and foreign firmware.
    case bare
}

/// Image, machine and launch options.
struct GuestOptions: ParsableArguments {
    @Argument(
        help:
            "A UKI, a bzImage, an ELF vmlinux or a firmware image, recognised by content; for `measure` an IGVM file, too."
    )
    var image: String?

    @Option(help: ArgumentHelp("A kernel: bzImage or ELF vmlinux.", valueName: "file"))
    var kernel: String?
    @Option(
        name: .customLong("initrd"),
        help: ArgumentHelp(
            "An initrd. For a Multiboot image a module; may be given several times then.", valueName: "file"))
    var initrds: [String] = []
    @Option(
        help: ArgumentHelp(
            "The kernel's command line; replaces the one of a UKI. (default: \(GuestOptions.defaultCommandLine))",
            valueName: "text"))
    var cmdline: String?
    @Option(help: ArgumentHelp("A flat firmware image with SEV metadata (OVMF).", valueName: "file"))
    var firmware: String?

    @Option(
        name: .customLong("machine"),
        help: ArgumentHelp(
            "The machine: default, or bare, which enters Multiboot 1 images and ROMs as they are, as a plain guest.",
            valueName: "machine"))
    var machineChoice = MachineChoice.standard
    @Option(
        help: ArgumentHelp(
            "A ROM that ends at 4 GiB and starts at its reset vector. Needs --machine bare.",
            valueName: "file"))
    var rom: String?

    @Option(
        name: .customLong("confidential"),
        help: ArgumentHelp(
            "What protects the guest: snp, sev-es, sev, or none for the same machine as a plain VM, which `run` alone "
                + "takes. (default: snp; for the owner's commands sev-es, or what the session is for)",
            valueName: "confidential"))
    var chosenConfidentiality: Confidentiality?
    @Option(help: ArgumentHelp("The guest's RAM, for example 512M or 2G.", valueName: "size"))
    var memory = "512M"
    @Option(help: ArgumentHelp("Virtual processors.", valueName: "n"))
    var cpus = 1
    @Option(
        name: .customLong("vcpu-type"),
        help: ArgumentHelp(
            "The processor whose signature is measured: EPYC-v4, EPYC-Milan, … (default: EPYC-v4)", valueName: "name"))
    var vcpuType: String?
    @Option(name: .customLong("vcpu-sig"), help: ArgumentHelp("The signature itself, CPUID 1 EAX.", valueName: "hex"))
    var vcpuSignature: String?

    @Option(
        name: .customLong("c-bit"),
        help: ArgumentHelp(
            "The C-bit's position that a direct boot is measured with; a launch asks the host. EPYC 7001 and 7002 have 47.",
            valueName: "bit"))
    var cBit: UInt8 = 51
    @Option(
        help: ArgumentHelp(
            "The guest policy. (default: 0x30000 for snp, 0x7 for sev-es, 0x3 for sev)", valueName: "number"))
    var policy: String?
    @Option(
        name: .customLong("guest-features"),
        help: ArgumentHelp("SEV_FEATURES of every VMSA of an SNP guest. (default: 0x1)", valueName: "number"))
    var guestFeatures: String?
    @Option(name: .customLong("host-data"), help: ArgumentHelp("HOST_DATA: 64 hex digits.", valueName: "hex"))
    var hostData: String?
    @Option(
        name: .customLong("id-block"), help: ArgumentHelp("The ID block: 96 bytes, raw or base64.", valueName: "file"))
    var idBlock: String?
    @Option(
        name: .customLong("id-auth"),
        help: ArgumentHelp("The ID authentication: 4096 bytes, raw or base64.", valueName: "file"))
    var idAuthentication: String?

    /// Serial console, an end on panic, and a reset that works without EFI.
    static let defaultCommandLine = "console=ttyS0 quiet panic=-1 reboot=a"

    /// What protects the guest.
    var confidential: Confidentiality { chosenConfidentiality ?? (machineChoice == .bare ? .none : .snp) }

    /// The initrd of a kernel that takes one.
    var initrd: String? { initrds.first }

    /// The files that are read, each with its name in messages.
    var inputs: [NamedPath] {
        [
            NamedPath("the image", image), NamedPath("--kernel", kernel), NamedPath("--rom", rom),
            NamedPath("--firmware", firmware), NamedPath("--id-block", idBlock),
            NamedPath("--id-auth", idAuthentication),
        ].compactMap(\.self) + initrds.map { NamedPath("--initrd", $0) }.compactMap(\.self)
    }

    /// Something to launch has been named. A launch digest may stand for it in the owner's commands.
    var namesImage: Bool { image ?? kernel ?? firmware ?? rom != nil }

    /// At most one way to say what is launched.
    func validate() throws {
        if machineChoice == .bare {
            if kernel != nil || firmware != nil {
                throw ValidationError("--machine bare takes an IMAGE (Multiboot 1) or --rom.")
            }
            if image != nil, rom != nil { throw ValidationError("IMAGE and --rom exclude each other.") }
            if rom != nil, !initrds.isEmpty || cmdline != nil {
                throw ValidationError("--initrd and --cmdline go with a Multiboot image, not with --rom.")
            }
            if confidential != .none {
                throw ValidationError("--machine bare is a plain machine: --confidential none.")
            }
        } else {
            if rom != nil { throw ValidationError("--rom needs --machine bare.") }
            if initrds.count > 1 {
                throw ValidationError("--initrd: several are for the Multiboot images of --machine bare.")
            }
        }
        switch (image, kernel, firmware) {
        case (.some, .some, _): throw ValidationError("IMAGE and --kernel exclude each other.")
        case (.some, _, .some): throw ValidationError("IMAGE and --firmware exclude each other.")
        default: break
        }
        if firmware != nil, kernel == nil, initrd != nil || cmdline != nil {
            throw ValidationError("--initrd and --cmdline go with --kernel when --firmware is given.")
        }
        if vcpuType != nil, vcpuSignature != nil {
            throw ValidationError("--vcpu-type and --vcpu-sig exclude each other.")
        }
        if (idBlock == nil) != (idAuthentication == nil) {
            throw ValidationError("--id-block and --id-auth go together.")
        }
        if confidential != .snp, idBlock != nil || hostData != nil {
            throw ValidationError("--host-data, --id-block and --id-auth belong to --confidential snp.")
        }
        guard (1...MachineDescription.maximumProcessorCount).contains(cpus) else {
            throw ValidationError("--cpus \(cpus): expected 1 to \(MachineDescription.maximumProcessorCount).")
        }
    }

    /// HOST_DATA and ID block.
    func identity() throws -> LaunchIdentity {
        var identity = LaunchIdentity()
        if let hostData {
            let bytes = try OptionValue.bytes(hostData, "--host-data", byteCount: 32)
            identity.hostData = .init { bytes[$0] }
        }
        if let idBlock, let idAuthentication {
            let block = IDBlock(bytes: try OptionValue.block(idBlock, "--id-block", byteCount: IDBlock.byteCount))
            let authentication = IDAuthentication(
                bytes: try OptionValue.block(idAuthentication, "--id-auth", byteCount: IDAuthentication.byteCount))
            // Safe: both have been checked for their length, which is all these need.
            identity.identityBlock = (block!, authentication!)
        }
        return identity
    }

    /// What protects the guest, for the commands about launches that somebody measures.
    func requiredTechnology() throws(CommandFailure) -> GuestTechnology {
        guard let technology = confidential.technology else {
            throw .usage("--confidential none: nobody measures a plain guest; expected snp, sev-es or sev")
        }
        return technology
    }

    /// The machine, but for what only a host knows: C-bit and CPUID list.
    func machine() throws -> MachineDescription {
        let technology = confidential.technology
        var signature = ProcessorSignature.epycV4
        if let vcpuType {
            guard let known = ProcessorSignature(typeName: vcpuType) else {
                let names = ProcessorSignature.types.map(\.name).joined(separator: ", ")
                throw CommandFailure.usage("--vcpu-type \(vcpuType): expected one of \(names)")
            }
            signature = known
        }
        if let vcpuSignature {
            signature = ProcessorSignature(rawValue: try OptionValue.hex32(vcpuSignature, "--vcpu-sig"))
        }
        var features: UInt64?
        if let guestFeatures {
            let value = try OptionValue.number(guestFeatures, "--guest-features")
            if technology != .snp {
                StandardError.write(line: "note: --guest-features belongs to SNP; other guests have SEV_FEATURES 0")
            } else if value & 1 == 0 {
                throw CommandFailure.usage("--guest-features \(guestFeatures): bit 0 (SNP active) must be set")
            } else {
                features = value
            }
        }
        var policyBits: UInt64?
        if let policy {
            let value = try OptionValue.number(policy, "--policy")
            guard value >> 32 == 0 || technology == .snp || technology == nil else {
                throw CommandFailure.usage("--policy \(policy): the policy of a SEV guest has 32 bits")
            }
            policyBits = value
        }
        return MachineDescription(
            memoryByteCount: try OptionValue.memory(memory), processorCount: cpus, technology: technology, cBit: cBit,
            signature: signature, guestFeatures: features, policy: policyBits)
    }
}

/// What the options name, read and recognised.
enum GuestSource {
    /// Kernel, initrd and command line, entered directly.
    case direct(BootPayload, form: String)
    case firmware(FirmwareImage, HashedKernel?)
    /// To be measured alone.
    case igvm(IGVMFile)
    /// A Multiboot image or a ROM for the bare machine.
    case bare(BareLaunch)

    init(_ options: GuestOptions) throws {
        guard options.namesImage else { throw CommandFailure.usage("Give an IMAGE, --kernel or --firmware.") }
        let commandLine = options.cmdline.map { Array($0.utf8) }
        if options.machineChoice == .bare {
            if let path = options.rom {
                self = .bare(.rom(try InputFile(path: path).read(as: "the ROM")))
                return
            }
            let image = try MultibootImage(try InputFile(path: options.image ?? "").read(as: "the image"))
            self = .bare(
                .multiboot(
                    image, commandLine: commandLine ?? [],
                    modules: try options.initrds.map { try InputFile(path: $0).read(as: "a module") }))
            return
        }
        let fallback = Array(GuestOptions.defaultCommandLine.utf8)
        let initrd = try options.initrd.map { try InputFile(path: $0).read(as: "the initrd") }
        if let path = options.firmware {
            let image = try FirmwareImage(try InputFile(path: path).read(as: "the firmware"))
            let kernel = try options.kernel.map { path in
                HashedKernel(
                    kernel: try InputFile(path: path).read(as: "the kernel"), initrd: initrd ?? [],
                    commandLine: commandLine ?? [])
            }
            self = .firmware(image, kernel)
            return
        }
        if let path = options.kernel {
            let kernel = try InputFile(path: path).image(as: "the kernel") { try LinuxKernel($0) }
            self = .direct(
                BootPayload(kernel: kernel, initrd: initrd ?? [], commandLine: commandLine ?? fallback),
                form: kernel.formName)
            return
        }
        let image = try InputFile(path: options.image ?? "").image(as: "the image") { try GuestImage.identify($0) }
        switch image {
        case .unifiedKernelImage(let uki):
            self = .direct(
                BootPayload(
                    kernel: uki.kernel, initrd: initrd ?? uki.initrd,
                    commandLine: commandLine ?? (uki.commandLine.isEmpty ? fallback : uki.commandLine)),
                form: image.formName)
        case .kernel(let kernel):
            self = .direct(
                BootPayload(kernel: kernel, initrd: initrd ?? [], commandLine: commandLine ?? fallback),
                form: image.formName)
        case .firmware(let firmware):
            guard initrd == nil, commandLine == nil else {
                throw CommandFailure.usage("--initrd and --cmdline go with --kernel when the image is a firmware")
            }
            self = .firmware(firmware, nil)
        case .igvm(let file):
            guard initrd == nil, commandLine == nil else {
                throw CommandFailure.usage(
                    "--initrd and --cmdline do not go with an IGVM file, which holds all of a guest")
            }
            self = .igvm(file)
        }
    }

    /// The plan of a launch on this machine.
    func plan(on machine: MachineDescription, profile: VMMProfile = .qemu) throws(ImageError) -> LaunchPlan {
        switch self {
        case .direct(let payload, _): try DirectBoot.plan(payload, on: machine)
        case .firmware(let image, let kernel):
            try FirmwareLaunch.plan(image, kernel: kernel, profile: profile, on: machine)
        case .bare(let launch):
            try launch.plan(memoryByteCount: machine.memoryByteCount, processorCount: machine.processorCount)
        case .igvm:
            throw ImageError(
                .unsupported, attempt: "plan the launch of the IGVM file",
                expected: "an image whose registers KVM can set",
                found: "VMSA pages", likelyCause: "a file for another loader", nextStep: "use `measure`, or give a UKI")
        }
    }

    /// The plan to be measured, by whatever loader the image is for.
    func measurablePlan(
        on machine: MachineDescription, profile: VMMProfile = .qemu, zeroPages: IGVMLaunch.ZeroPages = .measured
    ) throws(ImageError) -> LaunchPlan {
        guard case .igvm(let file) = self else { return try plan(on: machine, profile: profile) }
        return try IGVMLaunch.plan(file, zeroPages: zeroPages, on: machine)
    }

    /// The vCPUs start at a firmware's reset vector.
    var isFirmware: Bool {
        if case .firmware = self { true } else { false }
    }

    /// For messages: "UKI with a bzImage".
    var form: String {
        switch self {
        case .direct(_, let form): form
        case .firmware(_, let kernel): kernel == nil ? "firmware" : "firmware with a kernel's hashes"
        case .igvm: "IGVM"
        case .bare(.multiboot): "Multiboot image"
        case .bare(.rom): "ROM"
        }
    }
}
