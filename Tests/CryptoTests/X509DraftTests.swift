import Crypto
import TestSupport
import Testing

@Suite("DER and certificates to be signed")
struct X509DraftTests {
    @Test("lengths are the shortest ones", arguments: [0, 1, 127, 128, 255, 256, 65535, 65536])
    func lengths(_ count: Int) throws {
        let head: [UInt8] =
            switch count {
            case ..<128: [UInt8(count)]
            case ..<256: [0x81, UInt8(count)]
            case ..<65536: [0x82, UInt8(count >> 8), UInt8(count & 255)]
            default: [0x83, 1, 0, 0]
            }
        let contents = [UInt8](repeating: 0x5a, count: count)
        #expect(DER.octets(contents) == [0x04] + head + contents)
    }

    @Test("numbers have no leading zeroes and no sign")
    func integers() {
        let cases: [(UInt64, String)] = [
            (0, "020100"), (1, "020101"), (0x7f, "02017f"), (0x80, "02020080"), (0xff, "020200ff"), (0x100, "02020100"),
            (0x10000, "0203010000"), (.max, "020900ffffffffffffffff"),
        ]
        for (value, wanted) in cases { #expect(DER.integer(value).hex == wanted) }
        #expect(DER.integer(bigEndian: [0, 0, 0x80]).hex == "02020080")
        #expect(DER.integer(bigEndian: []).hex == "020100")
    }

    @Test("object identifiers as others write them")
    func identifiers() {
        let cases = [
            ("1.2.840.113549.1.1.10", "06092a864886f70d01010a"), ("2.5.29.15", "0603551d0f"),
            ("1.3.6.1.4.1.3704.1.3.8", "060a2b060104019c78010308"),
            ("2.16.840.1.101.3.4.2.2", "0609608648016503040202"),
        ]
        for (text, wanted) in cases { #expect(DER.identifier(text).hex == wanted, "\(text)") }
    }

    @Test("libcrypto reads a certificate as it was drafted, dates of every kind too")
    func certificate() throws {
        let key = RSAPrivateKey(bits: 2048, derivedFrom: [3], label: "draft")
        let name = X509NameDraft([(.country, "ZZ"), (.organization, "o"), (.commonName, "\u{e9}")])
        // 1970-01-01, 2000-02-29, 2023-12-31 23:59:59, 2024-02-29, 2024-12-31, 2049-12-31 23:59:59.
        let times: [Int64] = [0, 951_782_400, 1_704_067_199, 1_709_210_096, 1_735_603_200, 2_524_607_999]
        for (before, after) in zip(times, times.dropFirst()) {
            let draft = X509CertificateDraft(
                serialNumber: 0x8001, issuer: name, subject: name, notBefore: before, notAfter: after,
                subjectPublicKeyInfo: key.publicKey.subjectPublicKeyInfo,
                extensions: [
                    .signsCertificates(andRevocationLists: true), .subjectKey(key.publicKey),
                    .authorityKey(key.publicKey), .authority(pathLength: 3),
                    .revocationLists(at: "https://x.invalid/crl"), X509Extension("1.2.3", value: [5, 0]),
                ])
            for writesTrailer in [false, true] {
                let der = draft.signed(by: key, writesTrailer: writesTrailer)
                #expect(der == draft.signed(by: key, writesTrailer: writesTrailer))
                let read = try #require(X509Certificate(der: der))
                #expect(read.notBefore == before && read.notAfter == after)
                #expect(read.serialNumber == "8001" && read.subject == read.issuer && read.subject.der == name.der)
                #expect(read.subject.organization == "o" && read.isWellFormed && read.isAuthority)
                #expect(read.pathLength == 3 && read.rsaBitCount == 2048 && read.isSigned(by: read))
                #expect(read.keyUsage == X509Certificate.certificateSigning | X509Certificate.revocationListSigning)
                #expect(read.extensions.count == 6 && read.extensionValue("1.2.3") == [5, 0])
                #expect(read.subjectPublicKeyInfo == key.publicKey.subjectPublicKeyInfo)
            }
            let list = X509RevocationListDraft(
                issuer: name, thisUpdate: before, nextUpdate: after, revokedSerialNumbers: [0, 0x8001], number: 9
            ).signed(by: key)
            let read = try #require(X509RevocationList(der: list))
            #expect(read.thisUpdate == before && read.nextUpdate == after && !read.hasCriticalExtension)
            #expect(read.revokedSerialNumbers == ["0", "8001"] && read.issuer.der == name.der)
        }
    }
}
