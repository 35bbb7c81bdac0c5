"""The same work by other people's tools in Python, timed inside their process.

usage: peers.py verify FOLDER COUNT        a report, vcek.der, ask.der and ark.der of a Genoa chip in FOLDER
       peers.py digest FIRMWARE COUNT      the SNP launch digest of a firmware image, one vCPU of type EPYC-v4

Prints "NAME SECONDS-PER-OPERATION RESULT" for each tool that is installed and accepts the input.
"""

import hashlib
import os
import sys
import time
import warnings


def timed(name, count, work):
    try:
        result = work()
    except BaseException as error:  # A tool that refuses is no peer here, however it says so.
        print(f"{name} - {type(error).__name__}", flush=True)
        return
    start = time.perf_counter()
    for _ in range(count):
        work()
    print(f"{name} {(time.perf_counter() - start) / count:.9f} {result}", flush=True)


def verify(folder, count):
    def read(name):
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()

    report, vcek, ask, ark = read("report.bin"), read("vcek.der"), read("ask.der"), read("ark.der")
    try:
        import omne_attest

        pin = hashlib.sha256(ark).digest()
        policy = omne_attest.Policy(max_vmpl=3, reject_debug=False)
        timed("omne-attest", count, lambda: bool(omne_attest.verify(report, vcek, ask, ark, pin, policy)) or "ok")
    except ImportError:
        pass
    try:
        from cryptography import x509
        from dk_tee_attestation import amd_sev_snp_attestation_report_verification_utils as module

        def dk_tee():
            certificates = [x509.load_der_x509_certificate(der) for der in (ark, ask, vcek)]
            verifier = module.AmdSevSnpVerifier
            verifier._request_cert_chain = staticmethod(lambda *_: (certificates[0], certificates[1]))
            verifier._request_vcek = staticmethod(lambda *_: certificates[2])
            verifier.verify_amd_sev_snp_attestation_report(report, report[0x50:0x90])
            return "ok"

        timed("dk-tee-attestation", count, dk_tee)
    except ImportError:
        pass
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding
        from cvm_attest.snp import verify as cvm

        chain = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (ask, ark))
        timed("cvm-attest", count, lambda: cvm._verify_report_signature(report, vcek, chain) == (True, True))
    except ImportError:
        pass


def digest(firmware, count):
    try:
        from sevsnpmeasure import guest, vcpu_types
        from sevsnpmeasure.sev_mode import SevMode
        from sevsnpmeasure.vmm_types import VMMType
    except ImportError:
        return

    def measure():
        signature = vcpu_types.CPU_SIGS["EPYC-v4"]
        return guest.calc_launch_digest(
            SevMode.SEV_SNP, 1, signature, firmware, None, None, None, 1, vmm_type=VMMType.QEMU
        ).hex()

    timed("sev-snp-measure", count, measure)


if __name__ == "__main__":
    # Warnings about serial number 0, which real leaves have.
    warnings.simplefilter("ignore")
    command, path, count = sys.argv[1:4]
    (verify if command == "verify" else digest)(path, int(count))
