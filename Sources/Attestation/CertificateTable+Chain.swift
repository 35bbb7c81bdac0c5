// A chain as the table that a host hands to its guests.

import Crypto

extension CertificateTable {
    /// Leaf, ASK or ASVK, ARK, in the order that hosts write them; the CRL last, if there is one.
    public init(of chain: EndorsementChain, revocationList: X509RevocationList? = nil) {
        entries = [
            Entry(chain.leaf.kind == .vlek ? .vlek : .vcek, chain.leaf.certificate.der),
            Entry(.ask, chain.intermediate.der), Entry(.ark, chain.root.der),
        ]
        if let revocationList { entries.append(Entry(.crl, revocationList.der)) }
    }
}
