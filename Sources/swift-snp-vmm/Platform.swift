// `platform`: what the secure processor says about itself, how it is configured, and its certificates.

import ArgumentParser
import Attestation
import KVMABI
import SEVABI
import SNPVMM

struct Platform: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "platform",
        abstract: "Shows and configures the SEV and SNP platform, and exports its certificates.",
        subcommands: [Show.self, Create.self, SetTCB.self, LoadVLEK.self, ExportCertificates.self])
}

/// Which platform: the machine's own, or the software one in a folder.
struct PlatformOptions: ParsableArguments {
    @Option(help: "Whose platform: auto (the machine's if it has SEV, else software), kvm or software.")
    var backend = BackendChoice.auto
    @OptionGroup var state: PlatformStateOption

    func open() throws -> OpenPlatform { try OpenPlatform(self) }
}

/// `--platform-state`.
struct PlatformStateOption: ParsableArguments {
    @Option(
        name: .customLong("platform-state"),
        help: ArgumentHelp(
            "Where the software platform keeps its keys. (default: $XDG_STATE_HOME/swift-snp-vmm)", valueName: "folder")
    )
    var path: String?
}

/// A platform that answers.
struct OpenPlatform {
    let device: SEVPlatform
    /// Its folder; nil for the machine's own.
    let software: SoftwarePlatform?
    let processor: ProcessorIdentity

    init(_ options: PlatformOptions) throws {
        let backend = try Backend(
            options.backend, technology: .sev, memoryByteCount: 0, platformState: options.state.path)
        StandardError.write(line: backend.announcement)
        device = try SEVPlatform(backend.kernel)
        software = backend.softwarePlatform
        processor = try ProcessorIdentity(of: Host(backend.kernel))
    }

    /// The product, if its formats are known.
    var line: ProductLine? { if case .known(let line) = processor.product { line } else { nil } }

    /// A TCB_VERSION by its components, where the product's layout is known.
    func text(_ tcb: UInt64) -> String {
        line.flatMap { SecurityVersions(tcbVersion: tcb, of: $0) }.map { "\($0)" } ?? "0x" + String(tcb, radix: 16)
    }
}

/// The processor as KVM shows it.
struct ProcessorIdentity: CustomStringConvertible {
    let product: ProductLine.Identified
    private let family: UInt8
    private let model: UInt8

    /// From leaf 1 of `KVM_GET_SUPPORTED_CPUID`.
    init(of host: Host) throws(VMMError) {
        // EAX, combined values [APM3 CPUID].
        let eax = try host.supportedCPUID().first { $0.function == 1 }?.eax ?? 0
        let isExtended = eax >> 8 & 0xf == 0xf
        family = UInt8(truncatingIfNeeded: (eax >> 8 & 0xf) &+ (isExtended ? eax >> 20 & 0xff : 0))
        model = UInt8(truncatingIfNeeded: eax >> 4 & 0xf | (isExtended ? eax >> 12 & 0xf0 : 0))
        product = ProductLine.identify(family: family, model: model)
    }

    var description: String {
        let numbers = "family \(family), model \(model)"
        return switch product {
        case .known(let line): "\(line) (\(numbers))"
        case .unsupported(let name): "\(name) (\(numbers)), whose formats are not supported"
        case .unknown: "none that has SNP (\(numbers))"
        }
    }
}

extension Platform {
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Prints product, versions, state, owner and chip of the platform.",
            discussion: "Example: swift-snp-vmm platform show")

        @OptionGroup var options: PlatformOptions
        @Flag(help: "Prints one JSON object.")
        var json = false

        func run() throws {
            let platform = try options.open()
            let status = try platform.device.status()
            let snp = try? platform.device.snpStatus()
            let chip = (try? platform.device.chipID()).map { hexText($0) }
            if json {
                print(object(platform, status, snp, chip).text)
            } else {
                for (name, value) in lines(platform, status, snp, chip) {
                    print(name + ":" + String(repeating: " ", count: 15 - name.count) + value)
                }
                if platform.software != nil { print("This platform is software: it protects nothing.") }
            }
        }

        private func stateText(_ status: SEVUserStatus) -> String {
            let states = ["uninitialised", "initialised", "working"]
            return Int(status.state) < states.count ? states[Int(status.state)] : "state \(status.state)"
        }

        private func lines(
            _ platform: OpenPlatform, _ status: SEVUserStatus, _ snp: SNPUserStatus?, _ chip: String?
        ) -> [(String, String)] {
            let version = FirmwareVersion(apiMajor: status.apiMajor, apiMinor: status.apiMinor, build: status.build)
            let owner = status.flags & 1 == 0 ? "itself" : "an external owner"
            var lines = [
                ("product", "\(platform.processor)"),
                (
                    "firmware",
                    "\(version)    (--firmware-version \(version.apiMajor).\(version.apiMinor).\(version.build))"
                ),
                ("SEV", "\(stateText(status)), \(status.guestCount) guests, owned by \(owner)"),
                ("SEV-ES", status.flags & 0x100 != 0 ? "configured" : "not configured"),
            ]
            if let snp {
                lines.append(
                    ("SEV-SNP", "\(snp.state == 0 ? "uninitialised" : "initialised"), \(snp.guestCount) guests"))
                lines.append(("current TCB", platform.text(snp.currentTCB)))
                if let settings = platform.software?.settings {
                    lines.append(("committed TCB", platform.text(settings.committedTCB.rawValue)))
                }
                lines.append(("reported TCB", platform.text(snp.reportedTCB)))
                if let settings = platform.software?.settings {
                    lines.append(("reports", "version \(settings.reportVersion)"))
                }
                lines.append(("signed by", Self.signer(snp)))
            } else {
                lines.append(("SEV-SNP", "not available"))
            }
            if let chip { lines.append(("chip id", chip + (snp.map { $0.flags & 1 != 0 } == true ? " (masked)" : ""))) }
            return lines
        }

        /// Who signs reports, from the flags of SNP_PLATFORM_STATUS.
        private static func signer(_ snp: SNPUserStatus) -> String {
            if snp.flags & 4 != 0 { return "the loaded VLEK" }
            return snp.flags & 2 != 0 ? "nobody: the chip's key is masked" : "the chip's VCEK"
        }

        private func object(
            _ platform: OpenPlatform, _ status: SEVUserStatus, _ snp: SNPUserStatus?, _ chip: String?
        ) -> JSONObject {
            var object = JSONObject()
            object.add("software", platform.software != nil)
            if let line = platform.line { object.add("product", line.rawValue) }
            object.add("apiMajor", status.apiMajor)
            object.add("apiMinor", status.apiMinor)
            object.add("build", status.build)
            object.add("state", stateText(status))
            object.add("guestCount", status.guestCount)
            object.add("externallyOwned", status.flags & 1 != 0)
            object.add("sevES", status.flags & 0x100 != 0)
            if let chip { object.add("chipID", chip) }
            if let snp {
                object.add("snpInitialised", snp.state != 0)
                object.add("currentTCB", hex: snp.currentTCB)
                object.add("currentVersions", platform.text(snp.currentTCB))
                object.add("reportedTCB", hex: snp.reportedTCB)
                object.add("reportedVersions", platform.text(snp.reportedTCB))
                object.add("masksChipID", snp.flags & 1 != 0)
                object.add("masksChipKey", snp.flags & 2 != 0)
                object.add("vlekLoaded", snp.flags & 4 != 0)
            }
            if let settings = platform.software?.settings {
                object.add("committedTCB", hex: settings.committedTCB.rawValue)
                object.add("committedVersions", platform.text(settings.committedTCB.rawValue))
                object.add("reportVersion", settings.reportVersion)
            }
            return object
        }
    }
}
