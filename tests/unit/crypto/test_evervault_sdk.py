"""The published Evervault SDK for Python and this package read what the other writes.

Its crypto client is given keys of ours where it would fetch its app's; nothing leaves the machine.
"""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister import crypto
from cloister.dev import DataPlane

evervault = pytest.importorskip("evervault", reason="pip install evervault")
from evervault.client import Client as SdkClient  # noqa: E402 - it may not be there
from evervault.crypto.client import Client as CryptoClient  # noqa: E402
from evervault.errors.evervault_errors import EvervaultError  # noqa: E402

SCALARS = {"SECP256R1": bytes([0x21]) * 32, "SECP256K1": bytes([0x43]) * 32}
NAMES = {"SECP256R1": "P-256", "SECP256K1": "secp256k1"}
KEYS = crypto.Keyring([(NAMES[curve], scalar) for curve, scalar in SCALARS.items()])
VERSIONS = {
    ("SECP256R1", None): "Tk9D",
    ("SECP256R1", "allow-all"): "QkTC",
    ("SECP256K1", None): "RFVC",
    ("SECP256K1", "allow-all"): "S0lS",
}
DOCUMENT = {
    "text": 'é "quoted" \\ \n',
    "empty": "",
    "number": 4242424242424242,
    "negative": -1.5,
    "huge": 1e300,
    "yes": True,
    "no": False,
    "list": [1, "two", {"three": 3.25}],
}


class Fetch:
    """Stands where the SDK asks its API for the app's public keys."""

    def get(self, path: str) -> dict[str, str]:
        """The keys, as ``GET cages/key`` has them."""
        assert path == "cages/key"
        names = {"SECP256R1": "ecdhP256Key", "SECP256K1": "ecdhKey"}
        return {names[curve]: base64.b64encode(public(curve)).decode() for curve in SCALARS}


def public(curve: str) -> bytes:
    made = {"SECP256R1": ec.SECP256R1, "SECP256K1": ec.SECP256K1}[curve]()
    private = ec.derive_private_key(int.from_bytes(SCALARS[curve], "big"), made)
    return private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )


def by_sdk(curve: str, data: Any, role: str | None = None) -> Any:
    # One client for each: it keeps a derived key for 15 s whatever is asked for next.
    return CryptoClient(curve=curve).encrypt_data(Fetch(), data, role)


@pytest.mark.parametrize(("curve", "role"), VERSIONS, ids=VERSIONS.values())
def test_what_the_sdk_encrypts_opens_here(curve: str, role: str | None) -> None:
    sealed = by_sdk(curve, DOCUMENT, role)
    assert sealed["text"].startswith(f"ev:{VERSIONS[curve, role]}:")
    assert sealed["number"].split(":")[2] == "number"
    found = crypto.decrypt(sealed, KEYS)
    assert found == DOCUMENT
    assert [type(value) for value in found.values()] == [type(v) for v in DOCUMENT.values()]


@pytest.mark.parametrize("curve", SCALARS)
@pytest.mark.parametrize("clear", [b"", b"x", bytes(range(256)) * 1000], ids=len)
def test_a_file_of_the_sdk_opens_here(curve: str, clear: bytes) -> None:
    file = by_sdk(curve, clear)
    assert file[6] == {"SECP256K1": 2, "SECP256R1": 3}[curve]
    assert KEYS.decrypt_file(file) == clear


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    """The internal API with one of our keys; the SDK decrypts by asking it."""
    key = tmp_path_factory.mktemp("keys") / "app-key.json"
    private = base64.b64encode(SCALARS["SECP256R1"]).decode()
    key.write_text(f'{{"class": "development", "curve": "P-256", "private": "{private}"}}')
    with DataPlane("127.0.0.1:9", app_keys=[key], internal_api="127.0.0.1:0") as running:
        yield running


@pytest.mark.parametrize("version", ["QkTC", "Tk9D"])
def test_the_sdk_decrypts_what_is_encrypted_here(version: str, plane: DataPlane) -> None:
    """Its ``decrypt`` is a call of an API; that of an enclave answers it."""
    client = SdkClient(app_uuid="app", api_key="key", base_url=f"http://{plane.internal_api}/")
    sealed = crypto.encrypt(DOCUMENT, public("SECP256R1"), version=version)
    other = crypto.encrypt("x", _another_key(), version=version)
    with client.request_handler.request.http_session:
        assert client.decrypt(sealed) == DOCUMENT
        assert client.decrypt(sealed["text"]) == DOCUMENT["text"]
        # The twin: what is not for this key.
        with pytest.raises(EvervaultError):
            client.decrypt(other)


def test_what_is_written_here_has_the_form_that_the_sdk_writes() -> None:
    """Field by field: the same version, type, lengths of IV and key, and metadata."""
    ours = crypto.encrypt(DOCUMENT, public("SECP256R1"), role="allow-all")
    theirs = by_sdk("SECP256R1", DOCUMENT, "allow-all")
    for name in ("text", "empty", "number", "yes", "huge"):
        left, right = ours[name].split(":"), theirs[name].split(":")
        assert [len(part) for part in left] == [len(part) for part in right], name
        assert left[:-4] == right[:-4]


def _another_key() -> bytes:
    private = ec.generate_private_key(ec.SECP256R1())
    return private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
