// `platform`: what the secure processor says about itself, and its certificates for a guest owner.

import ArgumentParser
import Crypto
import GuestOwner
import KVMABI
import SEVABI
import SNPVMM
import SoftwarePSP

struct Platform: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows the SEV platform, and exports its certificates for a guest owner.",
        subcommands: [Show.self, ExportCertificates.self, Create.self])
}

/// Which platform: the machine's own, or the software one in a folder.
struct PlatformOptions: ParsableArguments {
    @Option(help: "Whose platform: auto (the machine's if it has SEV, else software), kvm or software.")
    var backend = BackendChoice.auto
    @Option(
        name: .customLong("platform-state"),
        help: ArgumentHelp(
            "Where the software platform keeps its keys. (default: $XDG_STATE_HOME/swift-snp-vmm)", valueName: "folder")
    )
    var platformState: String?

    /// The device, and whether it is software.
    func open() throws -> (platform: SEVPlatform, isSoftware: Bool) {
        let backend = try Backend(
            backend, technology: .sev, memoryByteCount: 0, platformState: platformState)
        StandardError.write(line: backend.announcement)
        return (try SEVPlatform(backend.kernel), backend.warning != nil)
    }
}

extension Platform {
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Prints versions, state, owner and chip of the platform.",
            discussion: "Example: swift-snp-vmm platform show")

        @OptionGroup var options: PlatformOptions
        @Flag(help: "Prints one JSON object.")
        var json = false

        func run() throws {
            let (platform, isSoftware) = try options.open()
            let status = try platform.status()
            let version = FirmwareVersion(apiMajor: status.apiMajor, apiMinor: status.apiMinor, build: status.build)
            let states = ["uninitialised", "initialised", "working"]
            let state = Int(status.state) < states.count ? states[Int(status.state)] : "state \(status.state)"
            let owner = status.flags & 1 == 0 ? "itself" : "an external owner"
            let snp = try? platform.snpStatus()
            let chip = (try? platform.chipID()).map { hexText($0) }
            if json {
                var object = JSONObject()
                object.add("software", isSoftware)
                object.add("apiMajor", status.apiMajor)
                object.add("apiMinor", status.apiMinor)
                object.add("build", status.build)
                object.add("state", state)
                object.add("guestCount", status.guestCount)
                object.add("externallyOwned", status.flags & 1 != 0)
                object.add("sevES", status.flags & 0x100 != 0)
                if let chip { object.add("chipID", chip) }
                if let snp {
                    object.add("snpInitialised", snp.state != 0)
                    object.add("currentTCB", hex: snp.currentTCB)
                    object.add("reportedTCB", hex: snp.reportedTCB)
                }
                print(object.text)
                return
            }
            print(
                "firmware:  \(version)    (--firmware-version \(version.apiMajor).\(version.apiMinor).\(version.build))"
            )
            print("SEV:       \(state), \(status.guestCount) guests, owned by \(owner)")
            print("SEV-ES:    \(status.flags & 0x100 != 0 ? "configured" : "not configured")")
            if let snp {
                print(
                    "SEV-SNP:   \(snp.state == 0 ? "uninitialised" : "initialised"), \(snp.guestCount) guests, TCB "
                        + "0x\(String(snp.currentTCB, radix: 16))")
            } else {
                print("SEV-SNP:   not available")
            }
            if let chip { print("chip id:   \(chip)") }
            if isSoftware { print("This platform is software: it protects nothing.") }
        }
    }

    struct ExportCertificates: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "export-certs",
            abstract: "Writes the platform's certificates into a folder, for `owner`.",
            discussion: """
                Writes pdh.cert, pek.cert, oca.cert, cek.cert, and pek, oca and cek in a row as chain.cert. For a software \
                platform its manufacturer's ark.cert and ask.cert too, and cek.cert is signed by that. The CEK of a real \
                chip comes without AMD's signature: get the signed one from AMD's key server for the chip id that `platform \
                show` prints, and AMD's ARK and ASK for the product.

                Example: swift-snp-vmm platform export-certs certs
                """)

        @OptionGroup var options: PlatformOptions
        @Argument(help: "The folder; made if need be.")
        var folder: String

        func run() throws {
            let (platform, isSoftware) = try options.open()
            let certificates = try platform.certificates()
            let count = SEVCertificate.byteCount
            var chain = certificates.chain
            var files: [(String, [UInt8])] = []
            if isSoftware {
                let manufacturer = Manufacturer(seed: try PlatformStateFolder(options.platformState).manufacturerSeed())
                if let signed = manufacturer.signed(cek: Array(chain.suffix(count))) {
                    chain.replaceSubrange((2 * count)..., with: signed)
                }
                files += [("ark.cert", manufacturer.ark.bytes), ("ask.cert", manufacturer.ask.bytes)]
            }
            files += [
                ("pdh.cert", certificates.pdh), ("pek.cert", Array(chain[..<count])),
                ("oca.cert", Array(chain[count..<(2 * count)])), ("cek.cert", Array(chain[(2 * count)...])),
                ("chain.cert", chain),
            ]
            let output = try OutputFolder(folder)
            for (name, bytes) in files { try output.write(name, bytes) }
            print("wrote \(files.map(\.0).joined(separator: " ")) to \(folder)")
            if isSoftware {
                StandardError.write(
                    line:
                        "warning: these are certificates of a software platform, which protects nothing; owners accept "
                        + "its root only when they name it with --ark and --ask.")
            }
        }
    }

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes the software platform: its chip, keys and manufacturer.",
            discussion: """
                Commands that need a software platform make one when there is none. This one makes it and refuses when there \
                is one already.

                Example: swift-snp-vmm platform create --platform-state lab
                """)

        @Option(
            name: .customLong("platform-state"),
            help: ArgumentHelp(
                "Where it keeps its keys. (default: $XDG_STATE_HOME/swift-snp-vmm)", valueName: "folder"))
        var platformState: String?
        @Option(
            help: ArgumentHelp(
                "Makes the same platform for the same text, for tests: nothing about it is secret.", valueName: "text"))
        var seed: String?

        func run() throws {
            let folder = try PlatformStateFolder(platformState)
            guard !folder.hasPlatform else {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not make a software platform in \(folder.path): there is one already. Next step: use it, "
                        + "choose another folder with --platform-state, or remove that one (sessions made for it will be "
                        + "refused).")
            }
            _ = try folder.storage(seed: seed)
            _ = try folder.manufacturerSeed(seed: seed)
            print("made a software platform in \(folder.path); it protects nothing")
        }
    }
}
