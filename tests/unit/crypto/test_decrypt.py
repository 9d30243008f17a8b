"""Decryption in Python: every version, every shape, and what is refused."""

import base64
import collections
import concurrent.futures
import decimal
import gc
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ciphertexts import VECTORS, App

from cloister import crypto
from cloister.errors import InputError, KeyFileError, MalformedCiphertext

APP = App()
KEYS = crypto.Keyring([("P-256", APP.scalar)])
KNOWN = json.loads(VECTORS.read_text())
KNOWN_KEYS = crypto.Keyring(
    [(curve, bytes.fromhex(KNOWN["app_private_hex"])) for curve in ("P-256", "secp256k1")]
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(document=DOCUMENTS)
def test_what_was_encrypted_comes_back_as_it_was(document: Any) -> None:
    found = crypto.decrypt(crypto.encrypt(document, KEYS.public_key or b""), KEYS)
    assert found == document
    assert repr(found) == repr(document)  # 1, 1.0 and True are equal, and are not the same


@given(document=DOCUMENTS)
def test_a_document_comes_back_to_the_byte(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False).encode()
    back = crypto.decrypt_json(crypto.encrypt_json(text, APP.public), KEYS)
    assert json.loads(back) == document


@given(document=DOCUMENTS)
def test_values_and_documents_follow_the_same_rules(document: Any) -> None:
    sealed = crypto.encrypt(document, APP.public)
    there = json.loads(crypto.decrypt_json(json.dumps(sealed).encode(), KEYS))
    here = crypto.decrypt(sealed, KEYS)
    assert there == here == document


@pytest.mark.parametrize(
    "vector", KNOWN["strings"], ids=lambda vector: f"{vector['token'][3:7]}-{vector['plain']!r}"
)
def test_every_version_opens(vector: dict[str, Any]) -> None:
    found = crypto.decrypt(vector["token"], KNOWN_KEYS)
    assert (type(found), found) == (type(vector["plain"]), vector["plain"])
    in_json = crypto.decrypt_json(json.dumps([vector["token"]]).encode(), KNOWN_KEYS)
    assert json.loads(in_json) == [vector["plain"]]


def test_the_oldest_version_on_p256_opens() -> None:
    """T1JL, of which no SDK made a known answer: the raw agreement is the key, nothing is added."""
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    shared = ephemeral.exchange(ec.ECDH(), APP.private.public_key())
    point = ephemeral.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )

    def token(aad: bytes | None) -> str:
        sealed = AESGCM(shared).encrypt(bytes(12), b"clear", aad)
        parts = [base64.b64encode(part).decode().rstrip("=") for part in (bytes(12), point, sealed)]
        return f"ev:T1JL:{':'.join(parts)}:$"

    assert crypto.decrypt(token(None), KEYS) == "clear"
    with pytest.raises(MalformedCiphertext):
        crypto.decrypt(token(APP.public), KEYS)


def test_numbers_are_exact() -> None:
    text = b"[1.10, 1e400, 123456789012345678901234567890, -0, 1E-7, 0.1e+1]"
    sealed = crypto.encrypt_json(text, APP.public)
    assert crypto.decrypt_json(sealed, KEYS) == text
    found = crypto.decrypt(json.loads(sealed), KEYS, parse_float=decimal.Decimal)
    assert [str(number) for number in found] == [
        "1.10",
        "1E+400",
        "123456789012345678901234567890",
        "0",
        "1E-7",
        "1",
    ]
    with pytest.raises(InputError, match="too large"):
        crypto.decrypt(json.loads(sealed), KEYS)


def test_an_integer_of_more_digits_than_python_reads_is_an_error_of_ours() -> None:
    long = crypto.encrypt_literal(b"1" * 5000, APP.public, kind="number")
    with pytest.raises(InputError, match="digits"):
        crypto.decrypt(long, KEYS)
    assert crypto.decrypt_json(json.dumps(long).encode(), KEYS) == b"1" * 5000


@pytest.mark.parametrize("value", [b"\xff\x00", "é", "", "\ud83d\ude00", "ev:no", "x" * 100_000])
def test_a_text_keeps_its_bytes(value: str | bytes) -> None:
    if isinstance(value, str):
        value = value.encode("utf-16", "surrogatepass").decode("utf-16")
    assert crypto.decrypt(crypto.encrypt(value, APP.public), KEYS) == value


def test_bytes_that_are_text_come_back_as_text() -> None:
    """A ciphertext says `string` of both; what is not UTF-8 can only have been bytes."""
    assert crypto.decrypt(crypto.encrypt(b"text", APP.public), KEYS) == "text"
    token = crypto.encrypt("secret", APP.public)
    assert crypto.decrypt(token.encode(), KEYS) == "secret"


def test_containers_keep_their_kind_and_other_values_stay() -> None:
    point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the kind people have
    mark = object()
    value = {"p": point(1, "a"), "t": (None, b"b")}
    found = crypto.decrypt({**crypto.encrypt(value, APP.public), "o": mark, "n": 7}, KEYS)
    assert found == {"p": point(1, "a"), "t": (None, "b"), "o": mark, "n": 7}
    assert type(found["p"]) is point
    assert type(found["t"]) is tuple


def test_what_stands_in_longer_text_is_put_there() -> None:
    token, number = crypto.encrypt(['"x"\n', 12], APP.public)
    assert crypto.decrypt(f"a {token}, {number}.", KEYS) == 'a "x"\n, 12.'
    # As in an enclave: what stands in JSON inside a string is not opened.
    inner = json.dumps({"inner": token})
    assert crypto.decrypt(inner, KEYS) == inner
    document = json.dumps([f"a {token}", inner]).encode()
    assert json.loads(crypto.decrypt_json(document, KEYS)) == ['a "x"\n', inner]


def test_what_is_no_ciphertext_passes() -> None:
    for value in [
        "ev:123:$",
        "ev:",
        "xev:y",
        "\udc80ev:\udc80",
        "ev:\udc80:$",
        b"ev:\xff:$",
        1.5,
        "é",
    ]:
        assert crypto.decrypt(value, KEYS) == value
    document = b'{"a": "ev:123", "b": [1.10,  null]'  # not even JSON
    assert crypto.decrypt_json(document, KEYS) == document


def test_a_document_without_a_ciphertext_is_returned_itself() -> None:
    for length in (1, 100_000):
        document = b'"' + b"x" * length + b'"'
        assert crypto.decrypt_json(document, KEYS) is document


def test_another_app_opens_nothing_and_says_nothing() -> None:
    token = crypto.encrypt("top secret", APP.public)
    assert crypto.decrypt(token, KEYS) == "top secret"
    others = crypto.Keyring([("P-256", App().scalar)])
    for call in (
        lambda: crypto.decrypt([token], others),
        lambda: crypto.decrypt(f"x {token}", others),
        lambda: crypto.decrypt_json(json.dumps(token).encode(), others),
    ):
        with pytest.raises(MalformedCiphertext, match="cannot be opened with any key") as caught:
            call()
        assert "top secret" not in str(caught.value)


def test_an_older_key_of_the_app_opens_too_and_the_newest_is_named() -> None:
    older, newer = App(), App()
    keys = crypto.Keyring([("P-256", older.scalar), ("P-256", newer.scalar)])
    for app in (older, newer):
        assert crypto.decrypt(crypto.encrypt("x", app.public), keys) == "x"
    assert keys.public_key == newer.public
    assert crypto.Keyring([("secp256k1", older.scalar)]).public_key is None


def test_a_swapped_type_is_refused() -> None:
    token = crypto.encrypt("1", APP.public, version="Tk9D")
    assert crypto.decrypt(token, KEYS) == "1"
    # That version does not authenticate the type, and the clear text is one.
    assert crypto.decrypt(token.replace("Tk9D:", "Tk9D:number:"), KEYS) == 1
    text = crypto.encrypt('1,"admin":true', APP.public, version="Tk9D")
    with pytest.raises(MalformedCiphertext):
        crypto.decrypt(text.replace("Tk9D:", "Tk9D:number:"), KEYS)


def test_debug_ciphertexts_are_opened_only_when_asked_for() -> None:
    token = "ev:debug:Tk9D:" + crypto.encrypt("x", APP.public, version="Tk9D").split(":", 2)[2]
    with pytest.raises(MalformedCiphertext, match="debug"):
        crypto.decrypt(token, KEYS)
    lax = crypto.Keyring([("P-256", APP.scalar)], dangerous_accept_debug=True)
    assert crypto.decrypt(token, lax) == "x"


@pytest.mark.parametrize(
    "keys",
    [
        [("P-256", bytes(32))],
        [("P-256", b"\xff" * 32)],
        [("secp256k1", b"\xff" * 32)],
        [("P-256", b"\x11" * 31)],
        [("P-384", b"\x11" * 32)],
        [("P-256", bytes([n]) * 32) for n in range(1, 6)],
    ],
    ids=["zero", "order", "order-of-the-other", "short", "curve", "five"],
)
def test_keys_that_are_none_are_refused(keys: list[tuple[str, bytes]]) -> None:
    with pytest.raises(KeyFileError):
        crypto.Keyring(keys)
    crypto.Keyring([("P-256", b"\x11" * 32)] * 4 + [("secp256k1", b"\x11" * 32)] * 4)


def test_t19_a_keyring_does_not_show_its_keys() -> None:
    shown = repr(KEYS) + str(KEYS) + repr(vars(type(KEYS)))
    assert APP.scalar.hex() not in shown
    assert repr(APP.scalar) not in shown
    with pytest.raises(TypeError):
        crypto.Keyring.__reduce_ex__(KEYS, 4)
    gc.collect()


def test_threads_share_a_keyring() -> None:
    documents = [crypto.encrypt([str(n)] * 20, APP.public) for n in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda document: crypto.decrypt(document, KEYS), documents))
    assert found == [[str(n)] * 20 for n in range(40)]


def test_what_is_nested_too_deep_is_refused() -> None:
    value: Any = crypto.encrypt("x", APP.public)
    for _ in range(crypto.MAX_DEPTH):
        value = [value]
    crypto.decrypt(value, KEYS)
    with pytest.raises(InputError, match="nested deeper"):
        crypto.decrypt([value], KEYS)
    empty: Any = {}
    for _ in range(crypto.MAX_DEPTH - 1):
        empty = [empty]
    assert crypto.decrypt(empty, KEYS) == empty
    with pytest.raises(InputError, match="nested deeper"):
        crypto.decrypt([empty], KEYS)


def test_a_private_key_file_is_read_by_its_form() -> None:
    good = {
        "class": "development",
        "curve": "P-256",
        "private": "ERERERERERERERERERERERERERERERERERERERERERE=",
    }
    assert crypto.read_private_key(json.dumps(good)) == ("P-256", b"\x11" * 32)
    for bad in (
        b"\xff",
        "{}",
        "[]",
        "[" * 100_000,
        json.dumps({**good, "curve": "P-384"}),
        json.dumps({**good, "curve": ["P-256"]}),
        json.dumps({**good, "private": "AA=="}),
        json.dumps({**good, "private": "!"}),
        json.dumps({**good, "private": 7}),
    ):
        with pytest.raises(KeyFileError):
            crypto.read_private_key(bad)
