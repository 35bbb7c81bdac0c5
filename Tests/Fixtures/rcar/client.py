"""A client of the RCAR exchange, written from the protocol and with libraries of others (cryptography, joserfc).

Speaks to the test on standard input and output: prints `report HEX` for 64 bytes of report data, reads a report in hex, then
certificates as `TYPE HEX` lines up to an empty one, and prints `secret HEX` or `refused STATUS TYPE DETAIL`.

usage: client.py PORT VERSION KEY RESOURCE [mischief]
"""

import base64
import hashlib
import http.client
import json
import struct
import sys
import warnings

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

port, version, kind, resource = sys.argv[1:5]
mischief = sys.argv[5] if len(sys.argv) > 5 else ""
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
cookie = None


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def integer(value, length):
    return b64(value.to_bytes(length, "big"))


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def call(method, path, body=None):
    global cookie
    headers = {"Content-Type": "application/json"}
    if cookie and mischief != "no-cookie":
        headers["Cookie"] = "other=1; " + cookie
    connection.request(method, "/kbs/v0/" + path, body=None if body is None else json.dumps(body), headers=headers)
    response = connection.getresponse()
    text = response.read()
    for name, value in response.getheaders():
        if name.lower() == "set-cookie":
            cookie = value.split(";")[0]
    if response.status != 200:
        error = json.loads(text)
        print("refused", response.status, error["type"].rsplit("/", 1)[1], error["detail"], flush=True)
        sys.exit(0)
    return json.loads(text)


# The key, as attestation agents make it.
if kind.startswith("P-"):
    curve, length = {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48), "P-521": (ec.SECP521R1(), 66)}[kind]
    private = ec.generate_private_key(curve)
    numbers = private.public_key().public_numbers()
    algorithm, key_type = "ECDH-ES+A256KW", ECKey
    tee_pubkey = {"kty": "EC", "crv": kind, "alg": algorithm, "x": integer(numbers.x, length), "y": integer(numbers.y, length)}
else:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    algorithm, key_type = kind, RSAKey
    tee_pubkey = {"kty": "RSA", "alg": algorithm, "n": integer(numbers.n, 256), "e": integer(numbers.e, 3)}

# Request, challenge.
extra = {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]} if version == "0.4.0" else ""
challenge = call("POST", "auth", {"version": version, "tee": "snp", "extra-params": extra})
nonce = challenge["nonce"]
assert len(base64.b64decode(nonce, validate=True)) == 32
if version == "0.4.0":
    assert challenge["extra-params"] == {"selected-hash-algorithm": "sha384"}, challenge
else:
    assert challenge["extra-params"] == "", challenge
assert cookie.startswith("kbs-session-id=")

# Attestation.
runtime = {"tee-pubkey": tee_pubkey, "nonce": nonce}
additional = ""
if version == "0.4.0":
    additional = json.dumps({"device": {"quote": "\"\\\b\f\n\r\t\u0001é/"}}) if mischief == "additional" else ""
    runtime["additional-evidence"] = additional
digest = hashlib.sha384(canonical(runtime)).digest()
if mischief == "other-digest":
    digest = hashlib.sha384(b"other").digest()
print("report", digest.hex() + "00" * 16, flush=True)
report = bytes.fromhex(sys.stdin.readline().strip())
certificates = []
while line := sys.stdin.readline().strip():
    name, data = line.split(" ")
    certificates.append({"cert_type": name, "data": list(bytes.fromhex(data))})


def numbers_of(start, count):
    return list(report[start:start + count])


def u(fmt, offset):
    return struct.unpack_from("<" + fmt, report, offset)[0]


def tcb(offset):
    raw = report[offset:offset + 8]
    if version == "0.2.0":
        return {"bootloader": raw[0], "tee": raw[1], "_reserved": list(raw[2:6]), "snp": raw[6], "microcode": raw[7]}
    return {"fmc": None, "bootloader": raw[0], "tee": raw[1], "snp": raw[6], "microcode": raw[7]}


# The crate's structure, field by field: of its versions before 6 and since.
fields = {
    "version": u("I", 0), "guest_svn": u("I", 4), "policy": u("Q", 8), "family_id": numbers_of(0x10, 16),
    "image_id": numbers_of(0x20, 16), "vmpl": u("I", 0x30), "sig_algo": u("I", 0x34), "current_tcb": tcb(0x38),
    "plat_info": u("Q", 0x40), "report_data": numbers_of(0x50, 64), "measurement": numbers_of(0x90, 48),
    "host_data": numbers_of(0xC0, 32), "id_key_digest": numbers_of(0xE0, 48), "author_key_digest": numbers_of(0x110, 48),
    "report_id": numbers_of(0x140, 32), "report_id_ma": numbers_of(0x160, 32), "reported_tcb": tcb(0x180),
    "chip_id": numbers_of(0x1A0, 64), "committed_tcb": tcb(0x1E0), "launch_tcb": tcb(0x1F0),
    "signature": {"r": numbers_of(0x2A0, 72), "s": numbers_of(0x2E8, 72)},
}
if version == "0.2.0":
    fields |= {"_author_key_en": u("I", 0x48), "_reserved_0": 0, "_reserved_1": numbers_of(0x188, 24)}
    for name, offset in (("current", 0x1E8), ("committed", 0x1EC)):
        for part, index in (("build", 0), ("minor", 1), ("major", 2)):
            fields[f"{name}_{part}"] = report[offset + index]
    fields["signature"]["_reserved"] = [0] * 368
else:
    fields |= {"key_info": u("I", 0x48), "cpuid_fam_id": report[0x188], "cpuid_mod_id": report[0x189], "cpuid_step": report[0x18A]}
    for name, offset in (("current", 0x1E8), ("committed", 0x1EC)):
        fields[name] = {"major": report[offset + 2], "minor": report[offset + 1], "build": report[offset]}
    fields |= {"launch_mit_vector": None, "current_mit_vector": None}
evidence = {"attestation_report": fields, "cert_chain": certificates or None}
if version == "0.4.0":
    body = {
        "runtime-data": {"nonce": nonce, "tee-pubkey": tee_pubkey},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": additional},
    }
    if mischief == "other-nonce":
        body["runtime-data"]["nonce"] = base64.b64encode(bytes(32)).decode()
else:
    body = {"tee-pubkey": tee_pubkey, "tee-evidence": evidence}
if mischief == "resource-first":
    call("GET", "resource/" + resource)
token = call("POST", "attest", body)["token"]
claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==="))
assert claims["exp"] > claims["iat"] and claims["tee-pubkey"] == tee_pubkey
if mischief == "attest-again":
    assert call("POST", "attest", body)["token"] == token

# Response.
answer = call("GET", "resource/" + resource)
header = json.loads(base64.urlsafe_b64decode(answer["protected"] + "==="))
# The agents' library writes the header anew before it authenticates it: alg, enc, then the rest by name.
anew = {"alg": header["alg"], "enc": header["enc"]}
anew |= {name: dict(sorted(header[name].items())) for name in sorted(header) if name not in anew}
assert b64(json.dumps(anew, separators=(",", ":")).encode()) == answer["protected"], header
key = key_type.import_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
# RSA1_5 is spoken by old clients; the library says that it is.
warnings.simplefilter("ignore")
registry = jwe.JWERegistry(algorithms=[algorithm, "A256GCM"])
opened = jwe.decrypt_json(answer, key, registry=registry)
print("secret", opened.plaintext.hex(), flush=True)
