"""Makes p384-base.txt with PyPI's pyhpke, and opens every first message with PyPI's cryptography, another implementation."""

import hashlib
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

suite = CipherSuite.new(KEMId.DHKEM_P384_HKDF_SHA384, KDFId.HKDF_SHA384, AEADId.AES256_GCM)
peer = hpke.Suite(hpke.KEM.P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM)


def bytes_of(label, count):
    return hashlib.shake_256(label.encode()).digest(count)



def scalar(pair):
    return pair.private_key._key.private_numbers().private_value.to_bytes(48, "big")


def point(pair):
    return pair.public_key._key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


out = []
for case in range(6):
    ikm_r = bytes_of(f"recipient {case}", 48 + case)
    ikm_e = bytes_of(f"ephemeral {case}", 48 + case)
    info = bytes_of(f"info {case}", [0, 20, 1, 97, 300, 64][case])
    recipient = suite.kem.derive_key_pair(ikm_r)
    ephemeral = suite.kem.derive_key_pair(ikm_e)
    enc, sender = suite.create_sender_context(recipient.public_key, info=info, eks=ephemeral)
    assert enc == point(ephemeral)
    out += [f"case {case}", f"ikmR {ikm_r.hex()}", f"skR {scalar(recipient).hex()}", f"pkR {point(recipient).hex()}"]
    out += [f"ikmE {ikm_e.hex()}", f"skE {scalar(ephemeral).hex()}", f"enc {enc.hex()}", f"info {info.hex()}"]
    for message in range(3 if case else 260):
        plaintext = bytes_of(f"message {case} {message}", [0, 1, 16, 33, 512, 48][case] + message % 3)
        # cryptography's single-shot form has no authenticated data: the first message goes without.
        aad = b"" if message == 0 else bytes_of(f"aad {case} {message}", message % 50)
        ciphertext = sender.seal(plaintext, aad=aad)
        if message == 0:
            private = ec.derive_private_key(int.from_bytes(scalar(recipient), "big"), ec.SECP384R1())
            assert peer.decrypt(enc + ciphertext, private, info=info) == plaintext
        # Of the long case only the messages where the sequence number gets its second byte are kept.
        if case or message in (0, 1, 255, 256, 257):
            out.append(f"message {message} {plaintext.hex() or '-'} {aad.hex() or '-'} {ciphertext.hex()}")
    for context, length in [(b"", 32), (b"\0", 48), (b"TestContext", 200)]:
        out.append(f"export {context.hex() or '-'} {length} {sender.export(context, length).hex()}")
open("p384-base.txt", "w").write("\n".join(out) + "\n")
