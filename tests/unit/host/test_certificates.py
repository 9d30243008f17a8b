"""What the development authority signs, and what it refuses."""

import datetime as dt
import ipaddress
import pathlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloister.errors import InputError, KeyFileError
from cloister.host.certificates import DevelopmentCa

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LOCAL = [
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
]


def request(
    names: list[x509.GeneralName] | None,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> DevelopmentCa:
    return DevelopmentCa(tmp_path / "ca", now=NOW)


def test_a_leaf_is_for_the_requested_key_and_names_and_for_servers_only(
    authority: DevelopmentCa,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [*LOCAL, x509.DNSName("a.example")]
    leaf, root = x509.load_pem_x509_certificates(
        authority.issue(request(names, key), ["a.example"], now=NOW).encode()
    )
    leaf.verify_directly_issued_by(root)
    assert leaf.public_key() == key.public_key()
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(found.value) == names
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_before_utc < NOW
    assert leaf.not_valid_after_utc - NOW == dt.timedelta(days=90)
    assert root.public_bytes(serialization.Encoding.PEM).decode() == authority.certificate_pem


def damaged(csr: bytes) -> bytes:
    """The same request with the last bit of its signature turned."""
    return csr[:-1] + bytes([csr[-1] ^ 1])


@pytest.mark.parametrize(
    ("csr", "domains", "message"),
    [
        (b"", [], "not PKCS#10"),
        (b"\x30\x03\x02\x01\x00", [], "not PKCS#10"),
        (b"\x30" * 20_000, [], "at most"),
        (damaged(request(LOCAL)), [], "signature does not verify"),
        (request(LOCAL, ec.generate_private_key(ec.SECP384R1())), [], "not on P-256"),
        (request(LOCAL, rsa.generate_private_key(65_537, 2048)), [], "not on P-256"),
        (request(None), [], "no subject alternative names"),
        (request([]), [], "no subject alternative names"),
        (request([x509.DNSName("a.example")]), [], "neither local nor of this order"),
        (request([x509.DNSName("a.example")]), ["b.example"], "neither local nor of this order"),
        (
            request([x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]),
            ["10.0.0.1"],
            "neither local nor of this order",
        ),
        (request([x509.RFC822Name("localhost")]), [], "neither local nor of this order"),
        (request([x509.UniformResourceIdentifier("localhost")]), [], "neither local nor"),
        (request([x509.DNSName("a.example")]), ["a.example", "b example"], "not a DNS name"),
        (request(LOCAL), ["A.example"], "not a DNS name"),
    ],
)
def test_a_request_that_asks_for_something_else_is_refused(
    authority: DevelopmentCa, csr: bytes, domains: list[str], message: str
) -> None:
    authority.issue(request(LOCAL), [], now=NOW)  # else a refusal means nothing
    with pytest.raises(InputError, match=message):
        authority.issue(csr, domains, now=NOW)


def test_the_root_is_made_once_and_its_key_is_private(tmp_path: pathlib.Path) -> None:
    first = DevelopmentCa(tmp_path / "ca", now=NOW)
    again = DevelopmentCa(tmp_path / "ca", now=NOW + dt.timedelta(days=1))
    assert again.certificate_pem == first.certificate_pem
    key = tmp_path / "ca" / "tls-ca.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700

    key.chmod(0o640)
    with pytest.raises(KeyFileError, match="read by others"):
        DevelopmentCa(tmp_path / "ca", now=NOW)


def test_a_key_and_a_certificate_of_two_roots_are_refused(tmp_path: pathlib.Path) -> None:
    DevelopmentCa(tmp_path / "a", now=NOW)
    DevelopmentCa(tmp_path / "b", now=NOW)
    (tmp_path / "a" / "tls-ca.pem").replace(tmp_path / "b" / "tls-ca.pem")
    with pytest.raises(KeyFileError, match="do not belong together"):
        DevelopmentCa(tmp_path / "b", now=NOW)


def test_a_leaf_does_not_outlive_ninety_days_or_its_root(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="90 days"):
        DevelopmentCa(tmp_path / "ca", now=NOW, lifetime=dt.timedelta(days=91))
    authority = DevelopmentCa(tmp_path / "ca", now=NOW)
    late = NOW + dt.timedelta(days=3640)
    leaf, root = x509.load_pem_x509_certificates(
        authority.issue(request(LOCAL), [], now=late).encode()
    )
    assert leaf.not_valid_after_utc == root.not_valid_after_utc
