"""Runs the cases against a verifier: ``python tests/conformance/attestation --subject "COMMAND"``.

The command reads one case a line on its standard input and answers with one verdict a line;
README.md beside this file has the contract. Nothing but the standard library is needed, and the
folder can be copied. Exit status: 0 when every case came out as it must, 1 when one did not, 2
when the subject does not keep the contract, or the cases are of another format.
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HERE = pathlib.Path(__file__).parent
FORMAT = "attestation-conformance/1"


class ContractError(Exception):
    """The subject does not keep the contract, or the cases are of another one."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A case that did not come out as it must."""

    case: str
    says: str
    expected: str
    found: str


def read_cases(folder: pathlib.Path = HERE / "cases") -> list[dict[str, Any]]:
    """All cases of all files, by the names of the files.

    Raises:
        ContractError: A file is of another format.
    """
    cases: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise ContractError(f"{path} has the format {found!r}, expected {FORMAT!r}")
        cases.extend(content["cases"])
    return cases


def ask(
    command: Sequence[str],
    cases: Sequence[Mapping[str, Any]],
    *,
    one_at_a_time: bool = False,
    timeout: float = 300.0,
) -> dict[str, dict[str, Any]]:
    """The subject's verdict by case. It sees what goes in, never what must come out.

    Raises:
        ContractError: It fails, or answers in another form or another number of lines.
    """
    verdicts: dict[str, dict[str, Any]] = {}
    batches = [[case] for case in cases] if one_at_a_time else [list(cases)]
    for batch in batches:
        lines = "".join(json.dumps({"id": one["id"]} | one["input"]) + "\n" for one in batch)
        try:
            done = subprocess.run(
                command, input=lines.encode(), capture_output=True, timeout=timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise ContractError(f"the subject cannot be asked: {problem}") from problem
        if done.returncode != 0:
            text = done.stderr.decode(errors="replace")[-2000:]
            raise ContractError(f"the subject ended with status {done.returncode}: {text}")
        answers = _lines(done.stdout.decode(errors="replace"))
        if len(answers) != len(batch):
            raise ContractError(f"{len(answers)} answers to {len(batch)} cases")
        for case, line in zip(batch, answers, strict=True):
            verdicts[case["id"]] = _verdict(case["id"], line)
    return verdicts


def _lines(output: str) -> list[str]:
    """What newlines end. `str.splitlines` ends a line at characters that JSON may have inside."""
    return output.removesuffix("\n").split("\n") if output else []


def _verdict(case: str, line: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except json.JSONDecodeError:
        raise ContractError(f"{case}: not a line of JSON: {line[:200]!r}") from None
    if not isinstance(answer, dict) or answer.get("id") != case:
        raise ContractError(f"{case}: an answer to another case: {line[:200]!r}")
    needs = {"accept": "claims", "refuse": "code", "unsupported": "reason"}
    kind = answer.get("verdict")
    if kind not in needs or needs[kind] not in answer:
        raise ContractError(f"{case}: no verdict of the contract: {line[:200]!r}")
    return answer


def judge(
    cases: Iterable[Mapping[str, Any]],
    verdicts: Mapping[str, Mapping[str, Any]],
    *,
    compare_codes: bool = True,
) -> list[Failure]:
    """The cases that did not come out as they must."""
    failures = []
    for case in cases:
        expected, found = case["expected"], verdicts[case["id"]]
        if not _agree(expected, found, compare_codes=compare_codes):
            failures.append(Failure(case["id"], case["says"], _short(expected), _short(found)))
    return failures


def _agree(expected: Mapping[str, Any], found: Mapping[str, Any], *, compare_codes: bool) -> bool:
    if found["verdict"] != expected["verdict"]:
        return False
    if expected["verdict"] == "accept":
        return bool(found["claims"] == expected["claims"])
    return not compare_codes or bool(found["code"] == expected["code"])


def _short(verdict: Mapping[str, Any]) -> str:
    match verdict["verdict"]:
        case "refuse":
            return f"refuse, {verdict['code']}"
        case "unsupported":
            return f"unsupported: {verdict['reason']}"
        case _:
            claims = verdict["claims"]
            return f"accept, {claims.get('module_id') if isinstance(claims, dict) else claims!r}"


def main() -> int:
    """Asks, judges, prints."""
    options = _options()
    listed: dict[str, str] = {}
    if options.deviations is not None:
        listed = json.loads(options.deviations.read_text(encoding="utf-8"))
    try:
        chosen = [one for one in read_cases() if one["id"].startswith(options.only)]
        verdicts = ask(shlex.split(options.subject), chosen, one_at_a_time=options.one_at_a_time)
    except ContractError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    failures = judge(chosen, verdicts, compare_codes=options.codes)
    unlisted = [one for one in failures if one.case not in listed]
    for one in unlisted:
        sys.stdout.write(
            f"{one.case}: {one.says}\n  expected {one.expected}\n  found    {one.found}\n"
        )
    names = {one["id"] for one in chosen}
    stale = (set(listed) & names) - {one.case for one in failures}
    for name in sorted(stale):
        sys.stdout.write(f"{name}: listed as a deviation, and it came out right\n")
    passed = len(chosen) - len(failures)
    known = len(failures) - len(unlisted)
    sys.stdout.write(f"{passed} of {len(chosen)} cases passed, {known} listed deviations\n")
    return int(bool(unlisted or stale or not chosen))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="attestation", description="Ask a verifier of attestation documents about every case."
    )
    parser.add_argument("--subject", required=True, help="the command, as in a shell")
    parser.add_argument("--only", default="", metavar="PREFIX", help="cases whose id begins so")
    parser.add_argument(
        "--one-at-a-time", action="store_true", help="start the command anew for each case"
    )
    parser.add_argument(
        "--no-codes", dest="codes", action="store_false", help="a refusal may have any code"
    )
    parser.add_argument(
        "--deviations", type=pathlib.Path, help="JSON: ids of cases that may fail, and why"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
