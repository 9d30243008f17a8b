"""How long documents and files take to be encrypted and decrypted from Python.

Run it by ``make bench-crypto``; it writes a page into ``bench/results``. Everything is processor
time of the thread that works, the least of many rounds that take turns: the rest of the machine
only ever adds to a time. What is compared:

- **ours**: one call of ``cloister.crypto`` for a whole document;
- **the limit**, of ``bench/rust/crypto-limits`` in the same run: the primitives alone, in Rust, for
  a program that knows beforehand where every ciphertext stands; **searched** has to find them;
- **Python**: ``re`` and ``cryptography``, with derived keys kept, as somebody would write it;
- **SDK**: the published ``evervault`` for Python, which encrypts (and has a service decrypt).

Every result is checked once, before it is timed.
"""

import argparse
import base64
import dataclasses
import datetime as dt
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from evervault.crypto.client import Client as SdkClient
from tests.support.ciphertexts import PREFIX

from cloister import crypto

SCALAR = b"\x11" * 32
KEYS = crypto.Keyring([("P-256", SCALAR)])
PUBLIC = KEYS.public_key or b""
WORDS = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod. "
TOKEN = re.compile(rb"ev:QkTC:(?:(number|boolean):)?([\w+/]{16}):([\w+/]{44}):([\w+/]{22,}):\$")
SMALL_NS = 75
KINDS = {b"": 0, b"number": 1, b"boolean": 2}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the page; times in nanoseconds."""

    number: str
    what: str
    ours: float
    others: Mapping[str, float]
    target: str


def main() -> None:
    """Measures and writes the page."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(pathlib.Path(folder), options.limits, options.rounds)
        rows = [*bench.scanning(), *bench.decrypting(), *bench.encrypting()]
    page = "\n".join([*_head(options), *_table(rows), *_tail(bench.shares)]) + "\n"
    options.output.write_text(page)
    sys.stderr.write(f"{page}\nwritten to {options.output}\n")


class _Bench:
    """Documents, and what does something with them."""

    def __init__(self, folder: pathlib.Path, limits: pathlib.Path, rounds: int) -> None:
        self._folder = folder
        self._limits = limits
        self._rounds = rounds
        self.shares: dict[str, dict[str, float]] = {}

    def scanning(self) -> Iterator[Row]:
        """Row 18: documents without a ciphertext."""
        for size in (1 << 10, 64 << 10, 8 << 20):
            body = document(size, share=0.0)
            assert KEYS.decrypt_json(body) is body
            ways: dict[str, Callable[[], Any]] = {
                "ours": lambda body=body: KEYS.decrypt_json(body),
                "`re`": lambda body=body: TOKEN.search(body),
                "`bytes.find`": lambda body=body: body.find(b"ev:"),
                "`json.loads`": lambda body=body: json.loads(body),
            }
            if size == 1 << 10:
                ways["a call alone, `len`"] = lambda body=body: len(body)
            found = self._turns(ways, repeat=max(1, (1 << 20) // size))
            found["limit: `memmem`"] = self._limit(body)["memmem"]
            if size == 1 << 10:
                target = _judged(f"≤ {SMALL_NS} ns", is_met=found["ours"] <= SMALL_NS)
            else:
                target = _judged("≥ 12 times `re`", is_met=found["`re`"] >= 12 * found["ours"])
            yield _row("18", f"scan {_size(size)} without a ciphertext", found, target)

    def decrypting(self) -> Iterator[Row]:
        """Rows 19 to 21: documents with ciphertexts."""
        for number, size, share, distinct, factor in (
            ("19", 64 << 10, 0.01, False, 1.25),
            ("20", 64 << 10, 0.5, False, 1.15),
            ("20", 8 << 20, 0.5, False, 1.15),
            ("21", 64 << 10, 0.5, True, 1.05),
        ):
            body = document(size, share=share, distinct=distinct)
            count = body.count(b"ev:QkTC:")
            plain = Plain()
            assert KEYS.decrypt_json(body) == plain.decrypt(body)
            ways: dict[str, Callable[[], Any]] = {
                "ours": lambda body=body: KEYS.decrypt_json(body),
                "Python": lambda body=body, plain=plain: plain.decrypt(body),
            }
            if distinct:
                ways = {
                    "ours": lambda body=body: fresh().decrypt_json(body),
                    "Python": lambda body=body: Plain().decrypt(body),
                }
            found = self._turns(ways, repeat=1, rounds=20 if size > 1 << 20 or distinct else None)
            what = f"{_size(size)}, {count} ciphertexts"
            what += ", as many ephemeral keys" if distinct else ", key at hand"
            limits = self._limit(body)
            found["limit"] = limits["limit-cold" if distinct else "limit"]
            if not distinct:
                found["limit, searched"] = limits["limit-searched"]
                self.shares[what] = limits
                found["ours, as text, in Rust"] = limits["text"]
                found["ours, of pieces, in Rust"] = limits["pieces"]
            found["ours, in Rust"] = limits["json-cold" if distinct else "json"]
            is_met = found["ours"] <= factor * found["limit"]
            yield _row(number, what, found, _judged(f"≤ {factor} of the limit", is_met=is_met))

    def encrypting(self) -> Iterator[Row]:
        """The same work as the published SDK's."""
        card = "4242424242424242"
        value = [{"card": card, "amount": 12.5, "ok": True}] * 100
        sdk = SdkClient(curve="SECP256R1")
        assert crypto.decrypt(sdk.encrypt_data(_Fetch(), value, "r"), KEYS) == value
        text = json.dumps(value).encode()
        found = self._turns(
            {
                "ours": lambda: crypto.encrypt(value, PUBLIC, role="r"),
                "ours, `encrypt_json`": lambda: crypto.encrypt_json(text, PUBLIC, role="r"),
                "SDK": lambda: sdk.encrypt_data(_Fetch(), value, "r"),
            },
            repeat=1,
        )
        yield _row("", "encrypt 300 values with a role", found, "faster than the SDK")
        found = self._turns(
            {
                "ours": lambda: crypto.encrypt(card, PUBLIC, role="r"),
                "SDK": lambda: SdkClient(curve="SECP256R1").encrypt_data(_Fetch(), card, "r"),
            },
            repeat=1,
        )
        yield _row("", "encrypt one value, new ephemeral key", found, "faster than the SDK")
        clear = os.urandom(8 << 20)
        sealed = sdk.encrypt_data(_Fetch(), clear, None)
        assert KEYS.decrypt_file(sealed) == clear

        def stream() -> None:
            crypto.encrypt_file(io.BytesIO(clear), io.BytesIO(), PUBLIC)

        found = self._turns(
            {
                "ours": stream,
                "SDK": lambda: sdk.encrypt_data(_Fetch(), clear, None),
                "limit: AES-GCM in one call": lambda: AESGCM(SCALAR).encrypt(
                    b"0" * 12, clear, None
                ),
            },
            repeat=1,
            rounds=20,
        )
        yield _row("", "encrypt a file of 8 MiB, as a stream", found, "")
        found = self._turns({"ours": lambda: KEYS.decrypt_file(sealed)}, repeat=1, rounds=20)
        yield _row("", "decrypt a file of 8 MiB", found, "")

    def _turns(
        self, ways: Mapping[str, Callable[[], Any]], *, repeat: int, rounds: int | None = None
    ) -> dict[str, float]:
        least: dict[str, float] = {}
        for _ in range(rounds or self._rounds):
            for name, work in ways.items():
                before = time.thread_time_ns()
                for _ in range(repeat):
                    work()
                taken = (time.thread_time_ns() - before) / repeat
                least[name] = min(taken, least.get(name, taken))
        return least

    def _limit(self, body: bytes) -> dict[str, float]:
        file = self._folder / "document"
        file.write_bytes(body)
        done = subprocess.run(
            [self._limits, SCALAR.hex(), file, str(self._rounds)],
            capture_output=True,
            check=True,
            text=True,
        )
        lines = (line.split() for line in done.stdout.splitlines())
        return {name: float(value) for name, value in lines}


class Plain:
    """What somebody would write: a pattern, ``cryptography``, and derived keys that are kept."""

    def __init__(self) -> None:
        self._private = ec.derive_private_key(int.from_bytes(SCALAR, "big"), ec.SECP256R1())
        self._keys: dict[bytes, tuple[bytes, AESGCM]] = {}

    def decrypt(self, body: bytes) -> bytes:
        """The document with every ciphertext replaced; there are only texts in these."""
        return TOKEN.sub(self._open, body)

    def _open(self, found: re.Match[bytes]) -> bytes:
        kind, iv, key, data = found.groups(b"")
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = self._derive(base64.b64decode(key))
        compressed, cipher = known
        aad = bytes([KINDS[kind] << 4 | 1]) + compressed + PUBLIC
        padded = data + b"=" * (-len(data) % 4)
        clear = cipher.decrypt(base64.b64decode(iv), base64.b64decode(padded), aad)
        text = clear[2 + int.from_bytes(clear[:2], "little") :]
        return text if kind else json.dumps(text.decode())[1:-1].encode()

    def _derive(self, compressed: bytes) -> tuple[bytes, AESGCM]:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), compressed)
        uncompressed = point.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        shared = self._private.exchange(ec.ECDH(), point)
        digest = hashlib.sha256(shared + b"\0\0\0\1" + PREFIX + uncompressed).digest()
        return compressed, AESGCM(digest)


class _Fetch:
    def get(self, _path: str) -> dict[str, str]:
        return {"ecdhP256Key": base64.b64encode(PUBLIC).decode()}


def fresh() -> crypto.Keyring:
    """The keys, with nothing derived."""
    return crypto.Keyring([("P-256", SCALAR)])


def document(size: int, *, share: float, distinct: bool = False) -> bytes:
    """A list of records with text, of about ``size`` bytes, ``share`` of them ciphertexts."""
    card = "4242424242424242"
    length = len(crypto.encrypt(card, PUBLIC))
    count = int(size * share / length)
    if distinct:
        tokens = [crypto.encrypt(card, PUBLIC) for _ in range(count)]
    else:
        tokens = crypto.encrypt([card] * count, PUBLIC)
    room = (size - count * length) // (count + 1)
    text = (WORDS * (room // len(WORDS) + 1))[: max(1, room - 24)]
    records: list[dict[str, str]] = [{"note": text, "card": token} for token in tokens]
    return json.dumps([*records, {"note": text}], separators=(",", ":")).encode()


def _row(number: str, what: str, found: dict[str, float], target: str) -> Row:
    others = {name: taken for name, taken in found.items() if name != "ours"}
    return Row(number, what, found["ours"], others, target)


def _judged(target: str, *, is_met: bool) -> str:
    return f"{target}: {'met' if is_met else 'missed'}"


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| row | work | ours | others: time (ours ÷ it) | target |"
    yield "|---|---|---|---|---|"
    for row in rows:
        others = "; ".join(
            f"{name} {_time(taken)} ({row.ours / taken:.2f})" for name, taken in row.others.items()
        )
        yield f"| {row.number} | {row.what} | {_time(row.ours)} | {others} | {row.target} |"


def _time(nanoseconds: float) -> str:
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def _head(options: argparse.Namespace) -> Iterator[str]:
    yield f"# Encrypting and decrypting from Python, {dt.datetime.now(dt.UTC):%Y-%m-%d}"
    yield ""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("cryptography", "evervault")
    )
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    model = cpu[1] if cpu else platform.machine()
    yield f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()},"
    yield f"Python {platform.python_version()}, {versions}; load average {os.getloadavg()[0]:.1f}."
    yield f"Command: `make bench-crypto`, {options.rounds} rounds. Processor time, minima."
    yield ""


def _tail(shares: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield ""
    yield "A time from Python has the interpreter's in it; *ours, in Rust* has not. The limit of"
    yield "rows 19 to 21 knows beforehand where every ciphertext is and that it is one, follows no"
    yield "JSON and escapes nothing; *searched* it has to look for `ev:` first. *As text* ours"
    yield "follows no JSON; *of pieces* is what a data plane does, to a body that comes in pieces."
    yield ""
    yield "Parts of the limit, each alone, and one search:"
    yield ""
    yield "| document | limit | AES-GCM | base64: IV, key, data | copying the rest | `memmem` |"
    yield "|---|---|---|---|---|---|"
    for what, limits in shares.items():
        names = ("limit", "aead", "base64", "copy", "memmem")
        yield f"| {what} | {' | '.join(_time(limits[name]) for name in names)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--limits", type=pathlib.Path, required=True, help="program crypto-limits")
    today = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    results = pathlib.Path(__file__).parents[1] / "results"
    parser.add_argument("--output", type=pathlib.Path, default=results / f"{today}-crypto.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
