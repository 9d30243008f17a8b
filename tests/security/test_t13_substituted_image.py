"""T-13: the host runs another image. Its registers differ, and the client sends it nothing."""

import datetime as dt
import pathlib

import pytest
from tests.support import simulated
from tests.support.enclave_server import serving

from cloister import attest, client
from cloister.errors import MeasurementMismatch
from cloister.moments import to_ms

EXPECTED = {
    "PCR0": simulated.PCR0.hex(),
    "PCR8": simulated.PCR8.hex(),
}


@pytest.mark.parametrize("pcr0", [b"\x5b" + simulated.PCR0[1:], b"\x01" * 48])
def test_a_substituted_image_is_refused(tmp_path: pathlib.Path, pcr0: bytes) -> None:
    now = dt.datetime.now(dt.UTC)
    root = tmp_path / "root"
    genuine, substituted = (
        simulated.nsm(pcr0=value, now=now, root_dir=root) for value in (simulated.PCR0, pcr0)
    )
    # The same development root signs for both: only the registers tell them apart.
    assert genuine.root_der == substituted.root_der
    anchor = simulated.anchor(genuine)
    for module, arrives in ((genuine, True), (substituted, False)):
        with (
            serving(module, tmp_path / f"enclave-{arrives}") as enclave,
            client.Session(
                enclave.url,
                EXPECTED,
                trust_anchor=anchor,
                ca_file=enclave.ca_file,
                timeout=5.0,
            ) as http,
        ):
            if arrives:
                http.post("/secret", data=b"plaintext")
            else:
                with pytest.raises(MeasurementMismatch) as caught:
                    http.post("/secret", data=b"plaintext")
                assert f"PCR0 received {pcr0.hex()}" in str(caught.value)
            assert len(enclave.requests) == int(arrives)
            assert (enclave.request_bytes > 0) == arrives


def test_one_matching_register_is_not_enough() -> None:
    """The signing certificate is right, the image is not: a set is matched whole."""
    module = simulated.nsm(pcr0=b"\x01" * 48)
    document = module.document(now_ms=to_ms(simulated.NOW))
    anchor = simulated.anchor(module)
    both = attest.Policy(measurements=EXPECTED, trust_anchor=anchor)
    with pytest.raises(MeasurementMismatch):
        attest.verify(document, both, now=simulated.NOW)
    signer = attest.Policy(measurements={"PCR8": EXPECTED["PCR8"]}, trust_anchor=anchor)
    attest.verify(document, signer, now=simulated.NOW)
