"""A simulated enclave for tests of verification: registers, a moment, a root, documents."""

import datetime as dt
import pathlib

from cloister import attest
from cloister._native import attest as native
from cloister.moments import to_ms

PCR0 = bytes.fromhex("5a" * 48)
PCR8 = bytes.fromhex("88" * 48)
NOW = dt.datetime(2026, 9, 21, 12, 0, 0, tzinfo=dt.UTC)


def now() -> dt.datetime:
    """The clock's time, for clients that look at the clock."""
    return dt.datetime.now(dt.UTC)


def nsm(
    *, pcr0: bytes = PCR0, now: dt.datetime = NOW, root_dir: pathlib.Path | None = None
) -> native.SimulatedNsm:
    """A module with a root of its own, or that of a folder."""
    return native.SimulatedNsm(
        [(0, pcr0), (8, PCR8)],
        module_id="i-test-enc1",
        now_ms=to_ms(now),
        root_dir=root_dir,
    )


def anchor(module: native.SimulatedNsm) -> attest.TrustAnchor:
    return attest.TrustAnchor.dangerous_root_data(module.root_der, name="the test's own")


def policy(module: native.SimulatedNsm, *, pcr0: bytes = PCR0) -> attest.Policy:
    """What the module's documents fulfil, unless another PCR0 is asked for."""
    return attest.Policy(measurements={0: pcr0}, trust_anchor=anchor(module))


VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "attestation"
