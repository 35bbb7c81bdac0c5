// `certs`: a folder with the certificates of a fleet, under the names that AMD's key server and other tools use.

import ArgumentParser
import Attestation
import CProcess
import Crypto
import SNPVMM

struct Certs: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certs",
        abstract: "Keeps certificates: VCEKs and VLEKs of many chips and TCBs, their authorities, revocation lists.",
        subcommands: [Import.self, Export.self, Show.self])

    /// What a folder holds that has the name of a certificate, or one file.
    static func sources(_ path: String) throws -> (files: [(name: String, bytes: [UInt8])], skipped: [String]) {
        let folder = CertificateFolder(path: path)
        guard let names = try folder.names() else {
            return ([(path, try CertificateFolder.read(path: path))], [])
        }
        var files: [(name: String, bytes: [UInt8])] = []
        var skipped: [String] = []
        for name in names {
            let path = path + "/" + name
            if CertificateFileName(path: path) == nil {
                skipped.append(path)
            } else {
                let file = try folder.read(name)
                if !CertificateFolder.isSEVCertificate(file) { files.append((path, file)) }
            }
        }
        return (files, skipped)
    }

    struct Import: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "import",
            abstract: "Takes certificates, revocation lists and certificate tables into a store.",
            discussion: """
                Every certificate must chain to AMD's root, or to one that you name, and be what its file's name says; \
                otherwise nothing is imported. A newer issue of a certificate replaces an older one of the same key. Nothing \
                is fetched.

                Sources are files (PEM, DER, the certificate table of an extended request or of snphost) and folders: what \
                was downloaded from AMD's key server, snpguest's and snphost's, trustee's VCEK store. The store itself has \
                the key server's and trustee's paths. Exit status 0: imported; 5: refused; 3: files that cannot be used.

                Example: swift-snp-vmm certs import store vcek.der cert_chain crl
                Example: swift-snp-vmm certs import store ./certs /sys/certs.bin
                """)

        @Argument(help: ArgumentHelp("The store's folder; made if need be.", valueName: "store"))
        var store: String
        @Argument(help: ArgumentHelp("Files and folders.", valueName: "source"))
        var sources: [String]
        @Option(
            name: .customLong("trusted-root"),
            help: ArgumentHelp(
                "A root that you trust beside AMD's; its certificates go into a folder of their own in the store. May be "
                    + "repeated.", valueName: "file"))
        var trustedRoots: [String] = []

        func run() throws {
            var files: [(name: String, bytes: [UInt8])] = []
            for source in sources {
                let found = try Certs.sources(source)
                files += found.files
                if let first = found.skipped.first {
                    let others = found.skipped.count > 1 ? " and \(found.skipped.count - 1) more" : ""
                    StandardError.write(line: "skipped: \(printable(first))\(others): not the names of certificates")
                }
            }
            let folder = CertificateFolder(path: store)
            let trusted = try TrustedRoots(paths: trustedRoots)
            let lock = try folder.lock()
            defer { file_close(lock) }
            var authorities = CertificatePool()
            for name in try folder.names() ?? [] {
                guard let fileName = CertificateFileName(path: name), fileName.role != .endorsement else { continue }
                try authorities.add(folder.storeFile(name) ?? [], name: printable(name))
            }
            var imported = CertificateStoreImport(authorities: authorities, trusted: trusted)
            var count = 0
            for (name, bytes) in files {
                let found = try imported.add(bytes, name: name)
                if found == 0 {
                    StandardError.write(line: "skipped: \(printable(name)), which holds no certificate")
                }
                count += found
            }
            guard count > 0 else {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not import certificates from \(sources.map(printable).joined(separator: ", ")): found "
                        + "none. Likely cause: another folder. Next step: give the files themselves.")
            }
            let changes = try imported.changes { try folder.storeFile($0) }
            for change in changes where change.action != .present { try folder.replace(change.path, change.bytes) }
            for change in changes {
                print("\(change.action.rawValue)  \(change.subject)  \(change.path)")
            }
        }
    }

    struct Export: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "export",
            abstract: "Writes the chain for one report, or for one chip and TCB, in the form that another tool takes.",
            discussion: """
                --table writes the table that a host hands to its guests (`run --certs`, snphost, QEMU); --folder writes \
                ark, ask or asvk, vcek or vlek, and crl, as snpguest and snphost name them.

                Example: swift-snp-vmm certs export store --report report.bin --table certs.bin
                Example: swift-snp-vmm certs export store --chip 1e550a8ee5cf9f4d --tcb blSPL=1,ucodeSPL=9 --folder certs
                """)

        @Argument(help: ArgumentHelp("The store, or any folder, file or table with certificates.", valueName: "store"))
        var store: String
        @Option(help: ArgumentHelp("The report that the chain is for: 1184 bytes.", valueName: "file"))
        var report: String?
        @Option(help: ArgumentHelp("The chip: CHIP_ID in hex, 64 bytes, or 8 on Turin.", valueName: "hex"))
        var chip: String?
        @Option(help: ArgumentHelp("Its TCB, as `certs show` prints it: blSPL=4,teeSPL=0,…", valueName: "text"))
        var tcb: String?
        @Option(help: ArgumentHelp("Milan, Genoa or Turin.", valueName: "name"))
        var product: String?
        @Flag(help: "The VLEK, which belongs to a provider and not to a chip.")
        var vlek = false
        @Option(help: ArgumentHelp("Writes a certificate table.", valueName: "file"))
        var table: String?
        @Option(help: ArgumentHelp("Writes one file per certificate.", valueName: "folder"))
        var folder: String?
        @Flag(help: "Files of --folder are DER. (default: PEM)")
        var der = false
        @Flag(help: "Puts the revocation list into the table, too.")
        var crl = false
        @Option(
            name: .customLong("trusted-root"),
            help: ArgumentHelp("A root that you trust beside AMD's. May be repeated.", valueName: "file"))
        var trustedRoots: [String] = []

        func validate() throws {
            if table == nil, folder == nil { throw ValidationError("Give --table or --folder.") }
            if report != nil, chip != nil || tcb != nil || product != nil || vlek {
                throw ValidationError("--report says all of --chip, --tcb, --product and --vlek.")
            }
            if report == nil, chip == nil, !vlek { throw ValidationError("Give --report, --chip or --vlek.") }
            if vlek, chip != nil { throw ValidationError("--chip and --vlek exclude each other: a VLEK has no chip.") }
            try NamedPath.check(
                outputs: [NamedPath("--table", table)].compactMap(\.self),
                inputs: [NamedPath("the store", store), NamedPath("--report", report)].compactMap(\.self))
        }

        func run() throws {
            let trusted = try TrustedRoots(paths: trustedRoots)
            let chain: EndorsementChain
            if let report {
                let bytes = try InputFile(path: report).read(as: "the report", byteCount: AttestationReport.byteCount)
                chain = try EndorsementChain(for: AttestationReport(bytes: bytes), in: [store], trusted: trusted)
                // A certificate for another report is of no use to anybody.
                _ = try chain.verify(bytes)
            } else {
                var pool = CertificatePool()
                try pool.add(path: store)
                for root in trusted.named { pool.add(root) }
                chain = try pool.chain(selecting: selection(), trusted: trusted)
            }
            let list = chain.newestRevocationList
            if crl, list == nil {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not export a CRL: the store \(printable(store)) has none of \(chain.root.subject). Next "
                        + "step: import the product's CRL, or leave --crl out.")
            }
            if let table {
                try OutputFolder.replace(
                    table, CertificateTable(of: chain, revocationList: crl ? list : nil).bytes)
            }
            if let folder {
                let output = try OutputFolder(folder)
                let leafName = chain.leaf.kind == .vlek ? "vlek" : "vcek"
                let signerName = chain.leaf.kind == .vlek ? "asvk" : "ask"
                try write("ark", "CERTIFICATE", chain.root.der, to: output)
                try write(signerName, "CERTIFICATE", chain.intermediate.der, to: output)
                try write(leafName, "CERTIFICATE", chain.leaf.certificate.der, to: output)
                if let list { try write("crl", "X509 CRL", list.der, to: output) }
            }
            let whose = chain.leaf.hardwareID.map { hexText($0) } ?? chain.leaf.providerID ?? ""
            print("\(chain.leaf.kind) of \(chain.leaf.productName) \(whose), \(chain.leaf.versions)")
            if let warning = chain.standing.warning { StandardError.write(line: "swift-snp-vmm: \(warning)") }
        }

        private func write(_ name: String, _ label: String, _ bytes: [UInt8], to output: OutputFolder) throws {
            if der {
                try output.write(name + ".der", bytes)
            } else {
                try output.write(name + ".pem", Array(PEM.text(PEM.Block(label: label, bytes: bytes)).utf8))
            }
        }

        private func selection() throws -> CertificateSelection {
            var selection = CertificateSelection()
            selection.kind = vlek ? .vlek : .vcek
            if let chip {
                let digits = chip.lowercased().hasPrefix("0x") ? chip.utf8.count - 2 : chip.utf8.count
                selection.chipID = try OptionValue.bytes(chip, "--chip", byteCount: digits == 16 ? 8 : 64)
            }
            if let product {
                guard let known = ProductLine(ignoringCase: product) else {
                    let names = ProductLine.allCases.map(\.rawValue).joined(separator: ", ")
                    throw CommandFailure.usage("--product \(product): expected one of \(names)")
                }
                selection.product = known
            }
            if let tcb {
                guard let versions = CertificateSelection.versions(tcb) else {
                    throw CommandFailure.usage(
                        "--tcb \(tcb): expected components with values up to 255, such as "
                            + "blSPL=4,teeSPL=0,snpSPL=24,ucodeSPL=219")
                }
                selection.versions = versions
            }
            return selection
        }
    }
}
