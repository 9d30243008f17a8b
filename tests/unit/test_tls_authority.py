"""A root and what it signs, judged by the path validation of a library that did not make them."""

import datetime as dt
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from cloister.tls_authority import TlsAuthority, private_key_pem

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
NAMES = [x509.DNSName("a.example"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]


def authority() -> TlsAuthority:
    return TlsAuthority.new("a root", not_before=NOW, not_after=NOW + 9 * DAY)


def issued(
    by: TlsAuthority, *, name: str | None = "a server", days: int = 1
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = by.issue(key.public_key(), NAMES, name=name, not_before=NOW, not_after=NOW + days * DAY)
    return leaf, key


def check(
    leaf: x509.Certificate,
    root: TlsAuthority,
    *between: x509.Certificate,
    name: x509.GeneralName = NAMES[0],
    at: dt.datetime = NOW,
) -> None:
    """As a client does that trusts this root."""
    assert isinstance(name, x509.DNSName | x509.IPAddress)
    store = verification.Store([root.certificate])
    builder = verification.PolicyBuilder().store(store).time(at)
    builder.build_server_verifier(name).verify(leaf, list(between))


@pytest.mark.parametrize("name", ["a server", None])
def test_a_client_that_trusts_the_root_takes_the_server(name: str | None) -> None:
    root = authority()
    leaf, key = issued(root, name=name)
    assert leaf.public_key() == key.public_key()
    for right in NAMES:
        check(leaf, root, name=right)
    with pytest.raises(verification.VerificationError):
        check(leaf, root, name=x509.DNSName("b.example"))
    with pytest.raises(verification.VerificationError):
        check(leaf, authority())
    with pytest.raises(verification.VerificationError):
        check(leaf, root, at=NOW + 2 * DAY)


def test_names_are_critical_where_there_is_no_other() -> None:
    for name, is_critical in (("a server", False), (None, True)):
        leaf, _ = issued(authority(), name=name)
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert (found.critical, list(found.value)) == (is_critical, NAMES)


def test_a_server_is_no_authority() -> None:
    root = authority()
    leaf, key = issued(root)
    below, _ = issued(TlsAuthority(certificate=leaf, key=key))
    check(leaf, root)
    with pytest.raises(verification.VerificationError):
        check(below, root, leaf)


def test_nothing_outlives_the_root() -> None:
    root = authority()
    assert issued(root, days=3)[0].not_valid_after_utc == NOW + 3 * DAY
    assert issued(root, days=30)[0].not_valid_after_utc == NOW + 9 * DAY


def test_the_key_is_in_no_text_but_its_own() -> None:
    root = authority()
    pem = private_key_pem(root.key)
    assert serialization.load_pem_private_key(pem, None).public_key() == root.key.public_key()
    assert "key" not in repr(root)
