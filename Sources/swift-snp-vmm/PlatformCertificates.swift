// `platform export-certs` and `platform load-vlek`: the certificates of a platform, and the key that a provider loads.

import ArgumentParser
import Crypto
import GuestOwner
import SEVABI
import SNPVMM
import SoftwarePSP

extension Platform {
    struct ExportCertificates: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "export-certs",
            abstract: "Writes the platform's certificates into a folder, for `owner` and `verify`.",
            discussion: """
                SEV and SEV-ES: pdh.cert, pek.cert, oca.cert, cek.cert, and pek, oca and cek in a row as chain.cert. For a \
                software platform its manufacturer's ark.cert and ask.cert too, and cek.cert is signed by that. The CEK of a \
                real chip comes without AMD's signature: get the signed one from AMD's key server for the chip id that \
                `platform show` prints, and AMD's ARK and ASK for the product.

                SNP, for a software platform: ark.pem, ask.pem, asvk.pem, crl.pem, vcek.pem for the reported TCB, and vlek.pem \
                when a VLEK is loaded. A real platform's are AMD's key server's.

                Example: swift-snp-vmm platform export-certs certs
                Example: swift-snp-vmm verify report.bin --certs certs --trusted-root certs/ark.pem
                """)

        @OptionGroup var options: PlatformOptions
        @Argument(help: "The folder; made if need be.")
        var folder: String

        func run() throws {
            let platform = try options.open()
            let certificates = try platform.device.certificates()
            let count = SEVCertificate.byteCount
            var chain = certificates.chain
            var files: [(String, [UInt8])] = []
            if let software = platform.software {
                let manufacturer = try software.manufacturer()
                let product = software.settings.product
                if let signed = manufacturer.signed(cek: Array(chain.suffix(count)), product: product) {
                    chain.replaceSubrange((2 * count)..., with: signed)
                }
                files = Self.files(of: software, manufacturer)
                files += [
                    ("ark.cert", manufacturer.ark(of: product).bytes),
                    ("ask.cert", manufacturer.ask(of: product).bytes),
                ]
            }
            files += [
                ("pdh.cert", certificates.pdh), ("pek.cert", Array(chain[..<count])),
                ("oca.cert", Array(chain[count..<(2 * count)])), ("cek.cert", Array(chain[(2 * count)...])),
                ("chain.cert", chain),
            ]
            let output = try OutputFolder(folder)
            for (name, bytes) in files { try output.write(name, bytes) }
            print("wrote \(files.map(\.0).joined(separator: " ")) to \(folder)")
            if platform.software != nil {
                StandardError.write(
                    line:
                        "warning: these are certificates of a software platform, which protects nothing; its roots are "
                        + "accepted only by who names them: --trusted-root ark.pem for reports, --ark and --ask for owners "
                        + "of SEV guests.")
            }
        }

        /// SNP's certificates, PEM.
        private static func files(of platform: SoftwarePlatform, _ manufacturer: Manufacturer) -> [(String, [UInt8])] {
            let settings = platform.settings
            let (product, tcb) = (settings.product, settings.reportedTCB)
            func text(_ label: String, _ der: [UInt8]) -> [UInt8] {
                Array(PEM.text(PEM.Block(label: label, bytes: der)).utf8)
            }
            let vlek = settings.vlekHashstick.map { manufacturer.vlek(of: $0, product: product, tcb: tcb) }
            return [
                ("ark.pem", text("CERTIFICATE", manufacturer.rootCertificate(product: product))),
                ("ask.pem", text("CERTIFICATE", manufacturer.signingCertificate(product: product))),
                ("asvk.pem", text("CERTIFICATE", manufacturer.vlekSigningCertificate(product: product))),
                ("crl.pem", text("X509 CRL", manufacturer.revocationList(product: product))),
                (
                    "vcek.pem",
                    text("CERTIFICATE", manufacturer.vcek(of: platform.storage, product: product, tcb: tcb))
                ),
            ] + (vlek.map { [("vlek.pem", text("CERTIFICATE", $0))] } ?? [])
        }
    }

    struct LoadVLEK: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "load-vlek",
            abstract: "Loads a VLEK: reports are then signed with a provider's key and not with the chip's.",
            discussion: """
                FILE is a hashstick that the manufacturer has wrapped for this chip, 432 bytes (SNP_VLEK_LOAD). A software \
                platform needs none: its manufacturer makes one. --remove forgets it, as a restart of a real machine does; it \
                is for software platforms only.

                Example: swift-snp-vmm platform load-vlek
                """)

        @OptionGroup var options: PlatformOptions
        @Argument(help: ArgumentHelp("The wrapped hashstick.", valueName: "file"))
        var file: String?
        @Flag(help: "Forgets the VLEK.")
        var remove = false

        func validate() throws {
            if remove, file != nil { throw ValidationError("--remove takes no file.") }
        }

        func run() throws {
            let platform = try options.open()
            if remove {
                guard let software = platform.software else {
                    throw CommandFailure.usage("--remove is for software platforms: a real one forgets at its restart")
                }
                do throws(PlatformStorageError) {
                    _ = try software.storage.changeSettings { settings in
                        settings.removeVLEK()
                        return .success
                    }
                } catch { throw software.folder.explained(error) }
                print("reports are signed with the chip's VCEK")
                return
            }
            try platform.device.loadVLEK(blob(for: platform))
            print("reports are signed with the VLEK")
        }

        private func blob(for platform: OpenPlatform) throws -> [UInt8] {
            if let file {
                return try InputFile(path: file).read(as: "the wrapped VLEK", byteCount: SNPVLEKLoad.wrappedByteCount)
            }
            guard let software = platform.software else {
                throw CommandFailure.usage("give the wrapped hashstick: AMD makes it for a provider and a chip")
            }
            // The same for every chip of this manufacturer, as a provider's is.
            var seed = try software.folder.manufacturerSeed()
            defer { wipe(&seed) }
            return VLEKHashstick(seed: seed).wrapped(for: software.storage, tcb: software.settings.currentTCB)
        }
    }
}
