"""Writes ``cases/*.json``: ``python -m tests.conformance.attestation.generate``.

The same files come out of every run: keys are derived from sentences, signatures have the nonces
of RFC 6979, and genuine documents are files of this repository. ``--check`` compares and writes
nothing.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Iterable

from tests.conformance.attestation.catalogue import (
    chain,
    envelope,
    genuine,
    moments,
    payload,
    policies,
)
from tests.conformance.attestation.catalogue.case import Case

FOLDER = pathlib.Path(__file__).with_name("cases")
FORMAT = "attestation-conformance/1"
ROOMS: dict[str, Callable[[], Iterable[Case]]] = {
    "genuine": genuine.cases,
    "envelope": envelope.cases,
    "payload": payload.cases,
    "chain": chain.cases,
    "time": moments.cases,
    "policy": policies.cases,
    "order": policies.order,
}


def files() -> dict[str, str]:
    """Text of each file by its name."""
    return {f"{room}.json": _text(list(cases())) for room, cases in ROOMS.items()}


def _text(cases: list[Case]) -> str:
    content = {"format": FORMAT, "cases": [case.as_json() for case in cases]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say which files differ")
    check = parser.parse_args().check
    made = files()
    there = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    differing = sorted(name for name in made | there if made.get(name) != there.get(name))
    for name in differing:
        sys.stdout.write(f"{name} differs\n")
        if not check and name in made:
            (FOLDER / name).write_text(made[name])
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
