"""Encryption from Python, read back by a second implementation."""

import base64
import collections
import concurrent.futures
import datetime as dt
import enum
import json
import math
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ciphertexts import App

from cloister import crypto
from cloister.errors import InputError, KeyFileError, UsageError

NOW = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)  # 1 700 000 000
APP = App()

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


def opened(value: Any) -> Any:
    """The same shape with every token opened, typed as the token says."""
    if isinstance(value, dict):
        return {key: opened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [opened(inner) for inner in value]
    if value is None:
        return None
    found = APP.open(value)
    return found.text.decode() if found.kind == "string" else json.loads(found.text)


@given(document=DOCUMENTS)
def test_a_document_comes_back_as_it_was(document: Any) -> None:
    sealed = crypto.encrypt(document, APP.public)
    assert opened(sealed) == document
    text = json.dumps(document).encode()
    assert opened(json.loads(crypto.encrypt_json(text, APP.public))) == document


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("", "string", b""),
        ("é", "string", "é".encode()),
        (b"\xff\x00", "string", b"\xff\x00"),
        (bytearray(b"x"), "string", b"x"),
        (0, "number", b"0"),
        (-(10**40), "number", b"-1" + b"0" * 40),
        (1.5, "number", b"1.5"),
        (1e300, "number", b"1e+300"),
        (True, "boolean", b"true"),
        (False, "boolean", b"false"),
    ],
)
def test_a_value_is_encrypted_with_its_type(value: Any, kind: str, text: bytes) -> None:
    found = APP.open(crypto.encrypt(value, APP.public))
    assert (found.kind, found.text) == (kind, text)


def test_a_number_that_writes_itself_in_another_way_is_a_number() -> None:
    """NumPy's floats are floats whose ``repr`` is ``np.float64(1.5)``."""

    class Size(int, enum.Enum):
        LARGE = 3

    class Scalar(float):
        def __repr__(self) -> str:
            return f"scalar({float(self)})"

    assert APP.open(crypto.encrypt(Size.LARGE, APP.public)).text == b"3"
    assert APP.open(crypto.encrypt(Scalar(1.5), APP.public)).text == b"1.5"


def test_containers_keep_their_kind() -> None:
    point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the kind people have
    sealed = crypto.encrypt({"p": point(1, 2), "t": (None, "a")}, APP.public)
    assert type(sealed["p"]) is point
    assert APP.open(sealed["p"].y).text == b"2"
    assert type(sealed["t"]) is tuple
    assert sealed["t"][0] is None


def test_one_document_has_one_ephemeral_key_and_no_iv_twice() -> None:
    sealed = [APP.open(token) for token in crypto.encrypt(["x"] * 50, APP.public)]
    assert len({value.ephemeral for value in sealed}) == 1
    assert len({value.iv for value in sealed}) == 50
    other = APP.open(crypto.encrypt("x", APP.public))
    assert other.ephemeral != sealed[0].ephemeral


def test_the_metadata_say_who_when_and_for_whom() -> None:
    found = APP.open(crypto.encrypt("x", APP.public, role="allow-all", now=NOW))
    expected = b"\x83\xa2dr\xa9allow-all\xa2eo\x07\xa2et\xce" + (1_700_000_000).to_bytes(4, "big")
    assert found.metadata == expected
    plain = crypto.encrypt("x", APP.public, version="Tk9D", now=NOW)
    assert plain.startswith("ev:Tk9D:")
    assert APP.open(plain).metadata is None


def test_another_app_opens_nothing() -> None:
    token = crypto.encrypt("x", APP.public)
    assert APP.open(token).text == b"x"
    with pytest.raises(InvalidTag):
        App().open(token)


def test_a_literal_is_kept_as_it_is_written() -> None:
    found = APP.open(crypto.encrypt_literal(b"1.10", APP.public, kind="number"))
    assert (found.kind, found.text) == ("number", b"1.10")
    for text, kind in [(b"1_000", "number"), (b"NaN", "number"), (b"yes", "boolean")]:
        with pytest.raises(InputError):
            crypto.encrypt_literal(text, APP.public, kind=kind)
    with pytest.raises(UsageError):
        crypto.encrypt_literal(b"1", APP.public, kind="integer")


@pytest.mark.parametrize(
    "value",
    [math.nan, -math.inf, object(), {1: "x"}, "\ud800", {"set"}, 10**5000],
    ids=["nan", "infinity", "object", "key", "surrogate", "set", "digits"],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    crypto.encrypt(["fine"], APP.public)
    with pytest.raises(InputError):
        crypto.encrypt([value], APP.public)


def test_nesting_is_bounded() -> None:
    value: Any = "x"
    for _ in range(crypto.MAX_DEPTH):
        value = [value]
    crypto.encrypt(value, APP.public)
    crypto.encrypt_json(json.dumps(value).encode(), APP.public)
    with pytest.raises(InputError, match="deeper"):
        crypto.encrypt([value], APP.public)
    with pytest.raises(InputError):
        crypto.encrypt_json(json.dumps([value]).encode(), APP.public)


@pytest.mark.parametrize("empty", [[], {}, ()], ids=["list", "object", "tuple"])
def test_an_empty_container_is_a_level_too(empty: Any) -> None:
    value: Any = empty
    for _ in range(crypto.MAX_DEPTH - 1):
        value = [value]
    assert crypto.encrypt(value, APP.public) == value
    text = json.dumps(value).encode()
    assert crypto.encrypt_json(text, APP.public) == text
    for refuse in (
        lambda: crypto.encrypt([value], APP.public),
        lambda: crypto.encrypt_json(b"[%b]" % text, APP.public),
    ):
        with pytest.raises(InputError, match="nested deeper than 128 levels"):
            refuse()


def test_a_public_key_may_be_base64() -> None:
    text = base64.b64encode(APP.public).decode()
    assert APP.open(crypto.encrypt("x", text + "\n")).text == b"x"
    off_curve = b"\x02" + b"\xff" * 32
    for wrong in ["no base64!", text[:-4], APP.public[:-1], b"\x04" + APP.public[1:], off_curve]:
        with pytest.raises(KeyFileError):
            crypto.encrypt("x", wrong)


def test_a_wrong_role_version_or_time_is_refused() -> None:
    for arguments in [
        {"role": "Capital"},
        {"role": "x" * 21},
        {"role": "\udcff"},
        {"version": "T1JL"},
        {"now": dt.datetime(1969, 1, 1, tzinfo=dt.UTC)},
    ]:
        with pytest.raises(UsageError):
            crypto.encrypt("x", APP.public, **arguments)  # type: ignore[arg-type]


def test_numbers_of_a_json_text_are_kept_to_the_digit() -> None:
    text = b' {"a" : 1.10, "b":[12345678901234567890, -0, 1E400, null]} '
    sealed = crypto.encrypt_json(text, APP.public)
    assert sealed.startswith(b' {"a" : "ev:')
    document = json.loads(sealed)
    tokens = [document["a"], *document["b"][:3]]
    written = [APP.open(token).text for token in tokens]
    assert written == [b"1.10", b"12345678901234567890", b"-0", b"1E400"]
    assert document["b"][3] is None


@pytest.mark.parametrize("text", [b"", b"{", b"[1,]", b'{"a"}', b"nul", b'"\x00"', b"\xff", b"1 2"])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InputError, match="not JSON"):
        crypto.encrypt_json(text, APP.public)


def test_threads_encrypt_at_the_same_time() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda n: crypto.encrypt(n, APP.public), range(100)))
    assert [int(APP.open(token).text) for token in tokens] == list(range(100))
