"""The simulated NSM that development and tests use, from Python."""

import pathlib
import stat

import pytest
from tests.support.simulated import NOW, PCR0, anchor, nsm, policy

from cloister import attest
from cloister._native import attest as native
from cloister.errors import RunnerError
from cloister.moments import to_ms


def test_one_root_for_a_folder(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "dev-ca"

    def made() -> native.SimulatedNsm:
        return native.SimulatedNsm([(0, PCR0)], module_id="i-x", now_ms=to_ms(NOW), root_dir=folder)

    one, two = made(), made()
    assert one.root_der == two.root_der
    assert stat.S_IMODE((folder / "nsm-root.key").stat().st_mode) == 0o600
    assert (folder / "nsm-root.pem").read_text() == one.root_pem
    document = two.document(now_ms=to_ms(NOW))
    root = attest.TrustAnchor.dangerous_root(folder / "nsm-root.pem")
    assert not root.is_aws_nitro
    attest.verify(document, attest.Policy(measurements={0: PCR0}, trust_anchor=root), now=NOW)
    (folder / "nsm-root.key").chmod(0o644)
    with pytest.raises(RunnerError, match="600"):
        made()


def test_limits_are_the_nsms() -> None:
    module = nsm()
    now = to_ms(NOW)
    module.document(now_ms=now, user_data=b"x" * 512, nonce=b"x" * 512, public_key=b"x" * 1024)
    for field in ("user_data", "nonce"):
        with pytest.raises(ValueError, match="InputTooLarge"):
            module.document(now_ms=now, **{field: b"x" * 513})
    with pytest.raises(ValueError, match="48"):
        native.SimulatedNsm([(0, b"short")], module_id="i", now_ms=now)
    with pytest.raises(RunnerError, match="PCR32"):
        native.SimulatedNsm([(32, PCR0)], module_id="i", now_ms=now)


def test_it_answers_the_protocol() -> None:
    module = nsm()
    assert module.handle(b"\x6bDescribeNSM", now_ms=0).startswith(b"\xa1\x6bDescribeNSM")
    assert module.handle(b"nonsense", now_ms=0) == b"\xa1\x65Error\x70InvalidOperation"


def test_two_modules_do_not_believe_each_other() -> None:
    one, two = nsm(), nsm()
    assert anchor(one) != anchor(two)
    document = one.document(now_ms=to_ms(NOW))
    attest.verify(document, policy(one), now=NOW)
    with pytest.raises(attest.UntrustedChain):
        attest.verify(document, policy(two), now=NOW)
