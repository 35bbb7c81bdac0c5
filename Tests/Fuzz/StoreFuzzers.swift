// What fills a certificate store, and what is compared with a plan: names, lists, tables, logs and saved plans.

import Attestation
import Crypto
import GuestImage
import GuestOwner
import LaunchMeasurement
import SEVABI
import SoftwarePSP
import TestSupport
import X86Defs

let storeFuzzers = [
    Fuzzer(
        name: "store-names", summary: "names of certificate files with changed text", smokeIterations: 5_000,
        generate: { changed(Array(names[$0.below(names.count)].utf8), &$0) }, check: checkName),
    Fuzzer(
        name: "store-revocations", summary: "a root's revocation list with changed bytes, or cut short",
        smokeIterations: 1_000, generate: { changed(OwnChain.shared.revocationList, &$0) }, check: checkRevocations),
    Fuzzer(
        name: "store-imports", summary: "certificate tables with changed bytes, taken into a store",
        smokeIterations: 300, generate: { changed(OwnChain.shared.table, &$0) }, check: checkImport),
    Fuzzer(
        name: "explain-launches", summary: "launch logs and saved plans with changed text", smokeIterations: 1_000,
        generate: launchText, check: checkLaunchText),
]

/// A software platform's certificates, made once.
private struct OwnChain {
    static let shared = OwnChain()

    let root: X509Certificate
    let leaf: X509Certificate
    let revocationList: [UInt8]
    let table: [UInt8]

    private init() {
        let manufacturer = Manufacturer(seed: [7])
        let chipID = [UInt8](repeating: 0x5a, count: 64)
        let vcek = manufacturer.vcek(
            key: P384PrivateKey(derivedFrom: [7], label: "fuzz vcek").publicKey, product: .milan, chipID: chipID,
            tcb: TCBVersion(rawValue: 0xdb18_0000_0000_0004))
        let ark = manufacturer.rootCertificate(product: .milan)
        revocationList = manufacturer.revocationList(product: .milan)
        table =
            CertificateTable(entries: [
                .init(.vcek, vcek), .init(.ask, manufacturer.signingCertificate(product: .milan)), .init(.ark, ark),
                .init(.crl, revocationList),
            ]).bytes
        guard let root = X509Certificate(der: ark), let leaf = X509Certificate(der: vcek) else {
            preconditionFailure("the manufacturer's certificates are none")
        }
        self.root = root
        self.leaf = leaf
    }
}

private let names = [
    "vcek/v1/Milan/\(String(repeating: "5a", count: 64))?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
    "vcek/1e550a8ee5cf9f4d/bl04_tee00_snp24_ucode219_fmc01_vcek.der", "vlek/v1/Genoa/cert_chain", "Turin.crl",
    "https://key.server/vlek/v1/Milan/cert?blSPL=4", "../../vcek.der",
]

private func checkName(_ bytes: [UInt8]) -> Outcome {
    let text = String(decoding: bytes, as: UTF8.self)
    let shown = printable(text)
    guard !shown.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7f }) else {
        return .impossible("a name moves the cursor")
    }
    guard let name = CertificateFileName(path: text) else { return .uninteresting("no name of a certificate") }
    if let id = name.hardwareID, id.count != 8, id.count != 64 { return .impossible("a chip id of \(id.count) bytes") }
    return .fine("\(name.role)")
}

private func checkRevocations(_ bytes: [UInt8]) -> Outcome {
    let chain = OwnChain.shared
    guard let list = X509RevocationList(der: bytes) else { return .uninteresting("no list") }
    guard list.isSigned(by: chain.root) else { return .uninteresting("not signed") }
    return bytes == chain.revocationList ? .fine("genuine") : .impossible("a changed list has a good signature")
}

private func checkImport(_ bytes: [UInt8]) -> Outcome {
    let chain = OwnChain.shared
    var imported = CertificateStoreImport(
        authorities: CertificatePool(), trusted: TrustedRoots(named: [chain.root]))
    do {
        try imported.add(bytes, name: "table.bin")
        for change in try imported.changes(existing: { _ in nil }) {
            let parts = change.path.split(separator: "/", omittingEmptySubsequences: false)
            guard parts.allSatisfy({ !$0.isEmpty && !$0.hasPrefix(".") && !$0.utf8.contains(0) }) else {
                return .impossible("a path of a store: \(change.path)")
            }
            guard
                change.subject != "VCEK"
                    || X509Certificate(der: change.bytes)?.subjectPublicKeyInfo
                        == chain.leaf.subjectPublicKeyInfo
            else { return .impossible("another leaf is taken in") }
        }
        return .fine("imported")
    } catch let error as AttestationError { return .uninteresting("\(error.category)") } catch {
        return .impossible("\(error)")
    }
}

// MARK: Launches as text

private let plan: LaunchRecord = {
    var state = ProcessorState()
    state.rip = 0xfff0
    return LaunchRecord(
        LaunchPlan(
            regions: [
                .init(
                    label: "page", pageType: .normal, gpa: 0x10000, byteCount: 0x2000,
                    contents: [UInt8](repeating: 1, count: 0x2000)),
                .init(label: "RAM", pageType: .zero, gpa: 0x20000, byteCount: 0x8000),
            ], processors: [state, state]), name: "plan")
}()

private let logText = Array(
    """
    {"sequence":1,"request":"KVM_SEV_SNP_LAUNCH_START","arguments":{"policy":"0x30000"},"result":0}
    {"sequence":2,"request":"KVM_SEV_SNP_LAUNCH_UPDATE","arguments":{"gfn":"0x10","byteCount":8192,"pageType":"NORMAL"},\
    "bytesLeft":0,"launchDigest":"\(String(repeating: "5a", count: 48))","pageDigests":"\(String(repeating: "7", count: 32))"}
    {"sequence":3,"request":"KVM_SEV_SNP_LAUNCH_UPDATE","arguments":{"gfn":"0x20","byteCount":32768,"pageType":"ZERO"},\
    "errno":"EAGAIN","bytesLeft":4096,"launchDigest":"\(String(repeating: "5b", count: 48))"}
    {"sequence":4,"request":"KVM_SEV_SNP_LAUNCH_FINISH","arguments":{"hostData":"00"},"result":0,"vmsas":["00","0102"]}
    """.utf8)

private let savedText = Array(
    """
    {"launchDigest":"\(String(repeating: "5a", count: 48))","technology":"snp","policy":"0x30000","steps":[\
    {"label":"page","pageType":"NORMAL","gpa":"0x10000","pageCount":2,"launchDigest":"00"},\
    {"label":"VMSA 0","pageType":"VMSA","gpa":"0xfffffffff000","pageCount":1,"vmsa":"0203"}]}
    """.utf8)

@Sendable private func launchText(_ numbers: inout SeededGenerator) -> [UInt8] {
    changed(numbers.below(3) == 0 ? savedText : logText, &numbers)
}

private func checkLaunchText(_ bytes: [UInt8]) -> Outcome {
    do throws(AttestationError) {
        let record =
            switch LaunchRecord.textForm(bytes) {
            case .launchLog: try LaunchRecord(log: bytes, name: "log")
            case .savedPlan: try LaunchRecord(savedPlan: bytes, name: "plan")
            case nil: try LaunchRecord(log: bytes, name: "neither")
            }
        let there = plan.differences(from: record)
        let back = record.differences(from: plan)
        guard there.count == back.count else { return .impossible("\(there.count) differences, \(back.count) back") }
        guard record.differences(from: record).isEmpty else { return .impossible("a launch differs from itself") }
        if var search = DigestSearch(target: plan) {
            _ = search.changes(in: .init(change: "", hasFreeProcessorCount: false, record: record))
        }
        return .fine("compared")
    } catch { return .uninteresting("\(error.category)") }
}
