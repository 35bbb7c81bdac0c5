"""Two verifiers that we did not write judge a report: omne-attest and cvm-attest, from PyPI (.ci/peers installs them).

usage: verify-report.py REPORT CERTIFICATES ROOT MEASUREMENT REPORT-DATA
       CERTIFICATES: a folder with ask.pem and vcek.pem
       ROOT:         a file with the root that is trusted, PEM; or "amd" for AMD's Milan root, which omne-attest carries

Prints one line per verifier, "NAME: accepted" or "NAME: refused: why". Exit status: 0 when both accept, 10 when both refuse,
11 when they disagree.
"""

import hashlib
import logging
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")  # serial number 0, as in AMD's own certificates
logging.disable(logging.CRITICAL)

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cvm_attest.snp import verify as cvm
from omne_attest import Policy, vectors, verify


def certificate(path):
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def omne(report, vcek, ask, root, measurement, report_data):
    """Signature, chain to the pinned root, chip, TCB, and what the caller expects."""
    policy = Policy(measurement=measurement, report_data=report_data)
    der = [item.public_bytes(Encoding.DER) for item in (vcek, ask, root)]
    verify(report, *der, hashlib.sha256(der[2]).digest(), policy)


def cvm_attest(report, vcek, ask, root):
    """Signature and chain."""
    chain = b"".join(item.public_bytes(Encoding.PEM) for item in (ask, root))
    signature, chain = cvm._verify_report_signature(report, vcek.public_bytes(Encoding.DER), chain)
    if not (signature and chain):
        raise ValueError(f"signature {signature}, chain {chain}")


def main():
    report, folder, root, measurement, report_data = sys.argv[1:]
    report = Path(report).read_bytes()
    vcek, ask = certificate(f"{folder}/vcek.pem"), certificate(f"{folder}/ask.pem")
    trusted = x509.load_der_x509_certificate(vectors.ark()) if root == "amd" else certificate(root)
    verifiers = {
        "omne-attest": lambda: omne(
            report, vcek, ask, trusted, bytes.fromhex(measurement), bytes.fromhex(report_data).ljust(64, b"\0")
        ),
        "cvm-attest": lambda: cvm_attest(report, vcek, ask, trusted),
    }
    verdicts = []
    for name, judge in verifiers.items():
        try:
            judge()
            verdicts.append(True)
            print(f"{name}: accepted")
        except Exception as error:  # each has exceptions of its own, and all of them are refusals
            verdicts.append(False)
            print(f"{name}: refused: {type(error).__name__}: {error}")
    sys.exit(0 if all(verdicts) else 11 if any(verdicts) else 10)


main()
