"""A part of ``attestation_speed``, a published verifier: ``REPEATS``, JSON out.

It reads the clock of the machine, so it runs under libfaketime at the document's time.
"""

import datetime as dt
import json
import sys

import cbor2
import evervault_attestation_bindings as bindings
from bench.python.attestation_subjects import DOCUMENT, MADE_AT, least
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def main() -> None:
    """Measures, and prints."""
    repeats = int(sys.argv[1])
    document = DOCUMENT.read_bytes()
    payload = cbor2.loads(cbor2.loads(document)[2])
    key = serialization.load_der_public_key(payload["user_data"])
    assert isinstance(key, ec.EllipticCurvePublicKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "enclave")])
    at = dt.datetime.fromtimestamp(MADE_AT, dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key, 1, at - dt.timedelta(1), at + dt.timedelta(1))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    registers = [payload["pcrs"][index].hex() for index in (0, 1, 2)]
    accepted = [bindings.PCRs(*registers, None)]
    assert bindings.attest_enclave(certificate, accepted, document) is True
    verify = bindings.attest_enclave
    found = {"cold": least(repeats, lambda _: verify(certificate, accepted, document))}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
