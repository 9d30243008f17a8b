"""T-23: what `cloister.testing` makes passes for nothing outside of the test that made it."""

import pathlib

import pytest
from tests.support import simulated

from cloister import attest, client
from cloister._native import attest as native
from cloister._native import devplane
from cloister.dev import DataPlane
from cloister.errors import DebugEnclave, UntrustedChain, UsageError
from cloister.moments import to_ms
from cloister.testing import Root, SimulatedEnclave, document

PCRS = {0: b"\x5a" * 48}


def test_production_verifiers_refuse_it() -> None:
    """With the very registers that are accepted, under the root of AWS."""
    made = document(pcrs=PCRS)
    attest.verify(made.raw, made.policy(), now=simulated.now())
    with pytest.raises(UntrustedChain):
        attest.verify(made.raw, attest.Policy(measurements=PCRS), now=simulated.now())
    with SimulatedEnclave(pcrs=PCRS) as enclave:
        with enclave.session() as session:
            assert session.get("/").status_code == 200
        with (
            client.Session(enclave.url, PCRS, ca_file=enclave.ca_file) as session,
            pytest.raises(UntrustedChain),
        ):
            session.get("/")


def test_its_root_is_nobody_elses_and_kept_nowhere(tmp_path: pathlib.Path) -> None:
    """Not that of another one, and not the development root, which others name in policies."""
    home = native.SimulatedNsm(
        [(0, PCRS[0])],
        module_id="i-home",
        now_ms=to_ms(simulated.now()),
        root_dir=tmp_path / "dev-ca",
    )
    roots = {home.root_der, Root().module.root_der, Root().module.root_der}
    with SimulatedEnclave(pcrs=PCRS) as enclave:
        roots.add(enclave.trust_anchor.dangerous_der or b"")
        # What it writes for its clients has no key of the root in it.
        written = b"".join(
            path.read_bytes()
            for path in enclave.ca_file.parent.iterdir()
            if path.name not in {"tls.key", "app-key.json"}
        )
        assert b"PRIVATE KEY" not in written
        with (
            enclave.session(enclave.policy(trust_anchor=simulated.anchor(home))) as session,
            pytest.raises(UntrustedChain),
        ):
            session.get("/")
    assert len(roots) == 4
    # Its files are those of `home`, and nothing was added.
    assert {path.name for path in (tmp_path / "dev-ca").iterdir()} == {
        "nsm-root.key",
        "nsm-root.lock",
        "nsm-root.pem",
    }


def test_chosen_registers_under_a_kept_root_do_not_start(tmp_path: pathlib.Path) -> None:
    """Who names the development root would take such a data plane for the enclave of an image."""
    now = to_ms(simulated.now())
    kept = native.SimulatedNsm(
        [(0, PCRS[0])], module_id="i-x", now_ms=now, root_dir=tmp_path / "dev-ca"
    )
    thrown_away = native.SimulatedNsm([(0, PCRS[0])], module_id="i-x", now_ms=now)

    def start(module: native.SimulatedNsm) -> devplane.DevPlane:
        plane = DataPlane("127.0.0.1:9")
        plane._settings["nsm"] = module
        return plane.start()._running()

    start(thrown_away).stop()
    for module in (kept, kept.another([(0, PCRS[0])], module_id="i-y", now_ms=now)):
        with pytest.raises(UsageError, match="kept nowhere"):
            start(module)


def test_a_development_data_plane_stays_a_debug_enclave() -> None:
    """`cloister.dev` has no way to choose registers."""
    with DataPlane("127.0.0.1:9") as plane:
        anchor = attest.TrustAnchor.dangerous_root(plane.nsm_root_file)
        lax = attest.Policy(
            measurements={0: bytes(48)}, trust_anchor=anchor, dangerous_accept_debug=True
        )
        assert client.attest(plane.url, lax, ca_file=str(plane.ca_file)).claims.is_debug
        strict = attest.Policy(measurements={0: bytes(48)}, trust_anchor=anchor)
        with pytest.raises(DebugEnclave):
            client.attest(plane.url, strict, ca_file=str(plane.ca_file))
    with pytest.raises(TypeError):
        DataPlane("127.0.0.1:9", pcrs=PCRS)  # type: ignore[call-arg]
