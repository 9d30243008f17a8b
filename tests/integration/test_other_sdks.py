"""The published Python SDK of the hosted product, as docs/guide/other-sdks.md points it here.

It pins the root of AWS, so it must refuse a simulated enclave; and it must do so for that reason
alone, after it found and read the document.
"""

import subprocess
import sys
from collections.abc import Iterator

import evervault_attestation_bindings as bindings
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from cloister import client
from cloister.testing import Handler, SimulatedEnclave, handler

HOST = "enclave.example.com"
NAME = f"hello.app-0123.{HOST}"

SCRIPT = """
import os
import socket
import sys

name, port, pcr0 = sys.argv[1:]
known = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: known(
    "127.0.0.1" if host == name else host, *rest, **more
)

import evervault

evervault.init("app_0123", "nobody asks for this")
session = evervault.attestable_enclave_session({"hello": [{"pcr_0": pcr0}]})
try:
    print("answered", session.post(f"https://{name}:{port}/", data="secret").status_code)
except Exception as problem:
    print("refused", type(problem).__name__, problem)
sys.stdout.flush()
os._exit(0)  # its timers never end
"""


@pytest.fixture(scope="module")
def app() -> Handler:
    return handler(lambda request: request.path)


@pytest.fixture(scope="module")
def enclave(app: Handler) -> Iterator[SimulatedEnclave]:
    with SimulatedEnclave(app, hosts=[NAME], config={"api_key_auth": False}) as running:
        yield running


def test_the_sdk_finds_the_document_and_refuses_its_root(
    enclave: SimulatedEnclave, app: Handler
) -> None:
    port = enclave.url.rpartition(":")[2]
    before = enclave.data_plane.stats()["requests"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, NAME, port, "a0" * 48],
        env={"EV_ENCLAVE_HOST": f"{HOST}:{port}", "REQUESTS_CA_BUNDLE": str(enclave.ca_file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("refused EnclaveVerificationException"), done.stdout + done.stderr
    assert "Failed to validate the trust chain" in done.stdout
    assert "UnknownIssuer" in done.stdout
    # It asked for the document, once more when the check failed, and sent nothing.
    assert enclave.data_plane.stats()["requests"] == before + 2
    assert app.seen == []


def test_its_bindings_refuse_for_the_root_alone(enclave: SimulatedEnclave) -> None:
    """A document that is not one is refused for another reason, so ours was read first."""
    found = client.attest(enclave.url, enclave.policy(), ca_file=str(enclave.ca_file))
    certificate = load_pem_x509_certificate((enclave.ca_file.parent / "tls.pem").read_bytes())
    leaf = certificate.public_bytes(Encoding.DER)
    expected = [bindings.PCRs(found.claims.pcrs[0].hex(), None, None, None)]
    with pytest.raises(ValueError, match="trust chain"):
        bindings.attest_enclave(leaf, expected, found.document)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is theirs
        bindings.attest_enclave(leaf, expected, b"not a document")
    assert "trust chain" not in str(caught.value)
