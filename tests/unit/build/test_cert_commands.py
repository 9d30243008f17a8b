"""``cloister cert``: a pair is made once, shown whole, and gives the register of what it signs."""

import datetime as dt
import json
import pathlib
import stat
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cloister.build.certificate import SigningCertificate
from cloister.build.eif import SigningPair
from cloister.build.new_pair import make_signing_pair
from cloister.cli.main import run
from cloister.errors import CloisterError, KeyFileError, MissingInput, OutputError

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    made = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_signing_pair(*made, name="test", now=NOW)
    return made


def cli(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> dict[str, object]:
    assert run(["cert", *map(str, words), "--json"]) == status
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_a_new_pair_signs_and_its_register_is_that_of_what_it_signs(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = tmp_path / "a" / "cert.pem", tmp_path / "a" / "key.pem"
    made = cli(capsys, "new", "--cert", cert, "--key", key, "--name", "example.org", "--days", 10)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert made["subject"] == made["issuer"] == "CN=example.org"
    assert "ends in" in str(made["problems"])
    signing = SigningPair.load(cert, key, now=dt.datetime.now(dt.UTC))
    assert signing.certificate.public_bytes(serialization.Encoding.DER)
    assert cli(capsys, "pcr8", cert)["pcr8"] == made["pcr8"]
    shown = cli(capsys, "show", cert)
    assert shown["public_key"] == "P-384"
    assert shown["pcr8"] == made["pcr8"]


def test_files_that_are_there_are_kept_unless_that_is_asked_for(
    pair: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = pair
    before = cert.read_bytes(), key.read_bytes()
    words = ("new", "--cert", cert, "--key", key)
    problem = cli(capsys, *words, status=OutputError.exit_status)["error"]
    assert "there already" in str(problem)
    assert (cert.read_bytes(), key.read_bytes()) == before
    cli(capsys, *words, "--force")
    assert cert.read_bytes() != before[0]
    assert key.read_bytes() != before[1]
    assert cli(capsys, "new", "--cert", cert, "--key", cert, "--force", status=2)["error"]


def test_a_pair_is_replaced_whole_or_not_at_all(
    pair: tuple[pathlib.Path, pathlib.Path],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A certificate that cannot be written must not cost the old key."""
    _, key = pair
    before = key.read_bytes()
    (tmp_path / "file").write_text("no folder")
    for cert in (tmp_path / "file" / "cert.pem", tmp_path):
        words = ("new", "--cert", cert, "--key", key, "--force")
        assert "cannot write" in str(cli(capsys, *words, status=OutputError.exit_status)["error"])
        assert key.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"cert.pem", "key.pem", "file"}


def test_what_is_shown_for_people_is_whole(
    pair: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = cli(capsys, "show", pair[0])
    assert run(["cert", "show", str(pair[0])]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines == {name: value for name, value in shown.items() if name != "problems"}


def test_what_keeps_a_certificate_from_signing_is_said(
    pair: tuple[pathlib.Path, pathlib.Path],
) -> None:
    found = SigningCertificate.read(pair[0])
    assert found.problems(NOW) == []
    assert "not valid before" in found.problems(NOW - dt.timedelta(days=2))[0]
    assert "ended" in found.problems(NOW + dt.timedelta(days=6 * 365))[0]
    assert "ends in" in found.problems(found.not_after - dt.timedelta(days=3))[0]


def test_a_key_or_text_is_no_certificate(
    pair: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    SigningCertificate.read(pair[0])
    (tmp_path / "text").write_text("hello")
    (tmp_path / "long").write_bytes(pair[0].read_bytes() + b"\n" * 100_000)
    for path in (pair[1], tmp_path / "text", tmp_path / "long"):
        with pytest.raises(KeyFileError, match="not a certificate in PEM"):
            SigningCertificate.read(path)
    with pytest.raises(MissingInput):
        SigningCertificate.read(tmp_path / "none")


def _written(
    folder: pathlib.Path,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    password: bytes | None = None,
) -> tuple[pathlib.Path, pathlib.Path]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=10))
        .sign(key, hashes.SHA384())
    )
    protection = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    cert_path, key_path = folder / "other.pem", folder / "other-key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    )
    return cert_path, key_path


Pair = tuple[pathlib.Path, pathlib.Path]
DEFECTS: dict[str, tuple[Callable[[pathlib.Path, Pair], Pair], type[CloisterError], str]] = {
    "certificate missing": (lambda at, p: (at / "none", p[1]), MissingInput, "none"),
    "key missing": (lambda at, p: (p[0], at / "none"), MissingInput, "none"),
    "certificate is a key": (lambda _, p: (p[1], p[1]), KeyFileError, "not a certificate in PEM"),
    "key is a certificate": (lambda _, p: (p[0], p[0]), KeyFileError, "not a private key in PEM"),
    "of two pairs": (
        lambda at, p: (_written(at, ec.generate_private_key(ec.SECP384R1()))[0], p[1]),
        KeyFileError,
        "is not the key of",
    ),
    "P-256": (
        lambda at, _: _written(at, ec.generate_private_key(ec.SECP256R1())),
        KeyFileError,
        "secp256r1|P-256",
    ),
    "RSA": (
        lambda at, _: _written(at, rsa.generate_private_key(65_537, 2048)),
        KeyFileError,
        "P-384",
    ),
    "encrypted": (
        lambda at, _: _written(at, ec.generate_private_key(ec.SECP384R1()), password=b"password"),
        KeyFileError,
        "encrypted with a password",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_of_a_signing_pair_has_its_own_message(
    defect: str, pair: Pair, tmp_path: pathlib.Path
) -> None:
    SigningPair.load(*pair, now=NOW)
    spoil, kind, message = DEFECTS[defect]
    with pytest.raises(kind, match=message):
        SigningPair.load(*spoil(tmp_path, pair), now=NOW)


@pytest.mark.parametrize(("days", "message"), [(-2, "is valid from"), (2000, "ended|expired")])
def test_a_pair_out_of_date_does_not_sign(days: int, message: str, pair: Pair) -> None:
    SigningPair.load(*pair, now=NOW)
    with pytest.raises(KeyFileError, match=message):
        SigningPair.load(*pair, now=NOW + dt.timedelta(days=days))


def test_signing_the_same_twice_gives_the_same_bytes(pair: Pair) -> None:
    signing = SigningPair.load(*pair, now=NOW)
    assert signing.sign(bytes(48)) == signing.sign(bytes(48))
    assert signing.sign(bytes(48)) != signing.sign(b"\x01" * 48)
