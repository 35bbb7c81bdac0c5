// `id-block`: what an owner signs beforehand, so that only one launch may become the guest.

import ArgumentParser
import Attestation
import Crypto
import SEVABI
import SNPVMM

struct IDBlockCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "id-block", abstract: "Makes and checks ID blocks.", subcommands: [Create.self, Check.self])

    /// Prints what reports will say.
    static func show(_ signed: SignedIDBlock) {
        print("launch digest:     \(signed.block.launchDigest)")
        print("policy:            0x\(String(signed.block.policy.rawValue, radix: 16))")
        print("guest SVN:         \(signed.block.guestSVN)")
        print("ID key digest:     \(hexText(signed.idKeyDigest))")
        print("author key digest: \(signed.authorKeyDigest.map { hexText($0) } ?? "none")")
    }

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Signs an ID block, and writes id-block.bin and id-auth.bin for `run`.",
            discussion: """
                Example: swift-snp-vmm id-block create out --id-key id.pem \
                --launch-digest "$(swift-snp-vmm measure guest.img)"
                """)

        @Argument(help: ArgumentHelp("Where both files go.", valueName: "folder"))
        var folder: String
        @Option(name: .customLong("id-key"), help: ArgumentHelp("The ID key: P-384, PEM or DER.", valueName: "file"))
        var idKey: String
        @Option(
            name: .customLong("author-key"),
            help: ArgumentHelp("Signs the ID key: P-384, PEM or DER.", valueName: "file"))
        var authorKey: String?
        @Option(
            name: .customLong("launch-digest"),
            help: ArgumentHelp("What `measure` prints: 96 hex digits.", valueName: "hex"))
        var launchDigest: String
        @Option(help: ArgumentHelp("The guest policy of the launch. (default: 0x30000)", valueName: "number"))
        var policy: String?
        @Option(name: .customLong("family-id"), help: ArgumentHelp("32 hex digits.", valueName: "hex"))
        var familyID: String?
        @Option(name: .customLong("image-id"), help: ArgumentHelp("32 hex digits.", valueName: "hex"))
        var imageID: String?
        @Option(name: .customLong("guest-svn"), help: "Version of the image, for policies and key derivation.")
        var guestSVN: UInt32 = 0

        func validate() throws {
            let outputs = [
                NamedPath("the folder's file", folder + "/id-block.bin"),
                NamedPath("the folder's file", folder + "/id-auth.bin"),
            ]
            try NamedPath.check(
                outputs: outputs.compactMap(\.self),
                inputs: [NamedPath("--id-key", idKey), NamedPath("--author-key", authorKey)].compactMap(\.self))
        }

        func run() throws {
            let digest = try OptionValue.bytes(launchDigest, "--launch-digest", byteCount: LaunchDigest.byteCount)
            let family = try familyID.map { try OptionValue.bytes($0, "--family-id", byteCount: 16) }
            let image = try imageID.map { try OptionValue.bytes($0, "--image-id", byteCount: 16) }
            let policy = try policy.map { GuestPolicy(rawValue: try OptionValue.number($0, "--policy")) } ?? .default
            guard policy.hasValidReservedBits else {
                throw CommandFailure.usage("--policy: bit 17 must be set and bits 63:26 clear, for example 0x30000")
            }
            let block = IDBlock(
                launchDigest: LaunchDigest(.init { digest[$0] }), familyID: .init { family?[$0] ?? 0 },
                imageID: .init { image?[$0] ?? 0 }, guestSVN: guestSVN, policy: policy)
            let signed = SignedIDBlock(
                signing: block, idKey: try P384PrivateKey.read(path: idKey, option: "--id-key"),
                authorKey: try authorKey.map { try P384PrivateKey.read(path: $0, option: "--author-key") })
            let output = try OutputFolder(folder)
            try output.write("id-block.bin", signed.block.bytes)
            try output.write("id-auth.bin", signed.authentication.bytes)
            IDBlockCommand.show(signed)
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check", abstract: "Checks an ID block as the firmware does at the end of the launch.",
            discussion: """
                Example: swift-snp-vmm id-block check --id-block out/id-block.bin --id-auth out/id-auth.bin \
                --launch-digest "$(swift-snp-vmm measure guest.img)" --policy 0x30000
                """)

        @Option(
            name: .customLong("id-block"), help: ArgumentHelp("96 bytes, raw or base64.", valueName: "file"))
        var idBlock: String
        @Option(
            name: .customLong("id-auth"), help: ArgumentHelp("4096 bytes, raw or base64.", valueName: "file"))
        var idAuthentication: String
        @Option(
            name: .customLong("launch-digest"),
            help: ArgumentHelp("The launch's digest, 96 hex digits.", valueName: "hex"))
        var launchDigest: String?
        @Option(help: ArgumentHelp("The launch's guest policy.", valueName: "number"))
        var policy: String?

        func run() throws {
            let digest = try launchDigest.map {
                try OptionValue.bytes($0, "--launch-digest", byteCount: LaunchDigest.byteCount)
            }
            let policy = try policy.map { GuestPolicy(rawValue: try OptionValue.number($0, "--policy")) }
            // Safe: both are checked for their length, which is all these need.
            let signed = SignedIDBlock(
                block: IDBlock(bytes: try OptionValue.block(idBlock, "--id-block", byteCount: IDBlock.byteCount))!,
                authentication: IDAuthentication(
                    bytes: try OptionValue.block(
                        idAuthentication, "--id-auth", byteCount: IDAuthentication.byteCount))!)
            try signed.check(launchDigest: digest.flatMap { LaunchDigest($0) }, policy: policy)
            IDBlockCommand.show(signed)
        }
    }
}
