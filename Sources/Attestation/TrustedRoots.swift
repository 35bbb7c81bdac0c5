// Which roots are believed: AMD's by the fingerprints of their keys, any other only when the caller names it.

import Crypto

/// The roots that a chain may end in.
public struct TrustedRoots: Sendable {
    /// AMD's alone.
    public static let amd = TrustedRoots()

    /// What the caller has named, beside AMD's.
    public let named: [X509Certificate]

    /// - Parameter named: Roots that the caller chose knowingly; they count by their key.
    public init(named: [X509Certificate] = []) { self.named = named }

    /// SHA-256 of the SubjectPublicKeyInfo of AMD's ARKs.
    static let fingerprints: [ProductLine: String] = [
        .milan: "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        .genoa: "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        .turin: "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    ]
    /// O in AMD's certificates.
    static let manufacturer = "Advanced Micro Devices"

    /// Why the root is believed.
    ///
    /// - Throws: ``AttestationError`` of category `untrusted`.
    func standing(of root: X509Certificate) throws(AttestationError) -> RootStanding {
        let fingerprint = hexText(root.keyFingerprint)
        if let product = Self.fingerprints.first(where: { $0.value == fingerprint })?.key {
            return .amd(product)
        }
        let isAMDByName = root.subject.organization == Self.manufacturer
        if named.contains(where: { $0.keyFingerprint == root.keyFingerprint }) {
            return isAMDByName ? .named(root.subject.description) : .software(root.subject.description)
        }
        throw AttestationError(
            .untrusted, attempt: "verify the certificate chain", subject: "ARK", field: "key fingerprint",
            expected: "AMD's root key of Milan, Genoa or Turin, or a root that you named",
            found: "\(fingerprint) of \(root.subject)",
            likelyCause: isAMDByName
                ? "a forged root with AMD's name, or a product whose root is not built in"
                : "a software platform, which protects nothing from its host, or another manufacturer",
            nextStep: isAMDByName
                ? "get the ARK of your product from AMD yourself; name it with --trusted-root only if that is the one"
                : "do not trust this guest; for tests name the root with --trusted-root")
    }
}

/// Why a root is believed.
public enum RootStanding: Equatable, Sendable {
    /// Its key is built in: AMD's root of this product.
    case amd(ProductLine)
    /// The caller named it; it has AMD's name, but not a key that is built in.
    case named(String)
    /// The caller named it, and it is not AMD's: a software platform, or a test.
    case software(String)

    /// What everybody who sees the result has to know; nil for AMD's own roots.
    public var warning: String? {
        switch self {
        case .amd: nil
        case .named(let name):
            "WARNING: the root \(name) has a key that is not known here as AMD's. It is believed only because you named it."
        case .software(let name):
            "WARNING: NOT AN AMD CHAIN. The root is \(name), believed only because you named it. Nothing protects such a "
                + "guest from its host: give it no real secrets."
        }
    }
}
