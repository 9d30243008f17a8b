"""The cases are what the generator makes, and both verifiers come out of them as they must."""

import json
import pathlib
import shutil
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from tests.conformance.attestation import __main__ as suite
from tests.conformance.attestation import generate

HERE = pathlib.Path(__file__).parent
CASES = suite.read_cases()
LISTED: dict[str, str] = json.loads((HERE / "deviations" / "independent.json").read_text())
CODES = {
    "BadSignature",
    "BindingMismatch",
    "DebugEnclave",
    "MalformedDocument",
    "MeasurementMismatch",
    "NonceMismatch",
    "PolicyError",
    "StaleDocument",
    "UntrustedChain",
}


def subject(name: str) -> list[str]:
    return [sys.executable, str(HERE / "subjects" / f"{name}.py")]


def test_the_files_are_what_the_generator_makes() -> None:
    made = generate.files()
    assert made == {path.name: path.read_text() for path in (HERE / "cases").glob("*.json")}


def test_every_negative_case_has_a_positive_twin() -> None:
    by_name = {case["id"]: case for case in CASES}
    assert len(by_name) == len(CASES) > 500
    refused = [case for case in CASES if case["expected"]["verdict"] == "refuse"]
    altered = [case["id"] for case in refused if case["twin"] is None]
    # It was altered by whoever published it; nobody has the one it was made from.
    assert altered == ["genuine/2022-11-09-badsig-veracruz-project-7df2cdc0"]
    for case in refused:
        if case["twin"] is not None:
            assert by_name[case["twin"]]["expected"]["verdict"] == "accept", case["id"]
    assert {case["expected"]["code"] for case in refused} == CODES


def test_the_specification_has_the_numbers() -> None:
    page = (HERE.parents[2] / "SPECIFICATION.md").read_text()
    number, most = len(CASES), len(CASES) - len(LISTED)
    assert f"| {number}, each refusal" in page
    assert f"accepted; {number}; {most}, the rest listed |" in page


def test_every_number_is_exact_in_javascript() -> None:
    numbers = [case["input"]["time_ms"] for case in CASES]
    numbers += [
        case["input"]["policy"][name] for case in CASES for name in ("max_age_ms", "leeway_ms")
    ]
    accepted = [case["expected"]["claims"] for case in CASES if "claims" in case["expected"]]
    numbers += [claims["timestamp_ms"] for claims in accepted]
    assert max(numbers) == 2**53 - 1
    assert min(numbers) == 0


def test_every_rule_of_the_specification_has_a_case() -> None:
    page = (HERE.parents[2] / "docs" / "spec" / "attestation.md").read_text()
    rules = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}
    named = Counter(case["rule"] for case in CASES)
    assert set(named) <= rules
    numbered = {rule for rule in rules if rule[:1] in "FPXCSTMBQ" and rule[1:].isdigit()}
    assert numbered == set(named)


def test_the_verifier_of_this_project_conforms() -> None:
    verdicts = suite.ask(subject("cloister_subject"), CASES)
    assert suite.judge(CASES, verdicts) == []


@pytest.fixture(scope="module")
def independent() -> dict[str, dict[str, Any]]:
    """What the verifier of other libraries says of every case."""
    return suite.ask(subject("independent"), CASES)


def test_an_independent_verifier_conforms_but_for_the_listed_cases(
    independent: dict[str, dict[str, Any]],
) -> None:
    failed = {one.case: one for one in suite.judge(CASES, independent)}
    assert set(failed) == set(LISTED)
    # A deviation is laxer or has another code; nothing that must be accepted is refused.
    for name, one in failed.items():
        assert one.expected.startswith("refuse"), name
        assert one.found.startswith("accept" if LISTED[name].startswith("laxer") else "refuse"), (
            name
        )


def test_an_answer_does_not_depend_on_the_cases_before_it(
    independent: dict[str, dict[str, Any]],
) -> None:
    chosen = CASES[:: len(CASES) // 4]
    alone = suite.ask(subject("independent"), chosen, one_at_a_time=True)
    assert alone == {case["id"]: independent[case["id"]] for case in chosen}


STUBS = {
    "accepts everything": '{"verdict": "accept", "claims": {}}',
    "refuses everything": '{"verdict": "refuse", "code": "MalformedDocument"}',
    "supports nothing": '{"verdict": "unsupported", "reason": "a stub"}',
}


@pytest.mark.parametrize("verdict", STUBS.values(), ids=STUBS)
def test_a_subject_with_one_answer_to_everything_fails(verdict: str) -> None:
    done = run(f"{stub(verdict)}")
    assert done.returncode == 1
    assert "cases passed, 0 listed deviations" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "answer",
    [
        "print('no JSON')",
        "print('{}')",
        "pass",
        "print(json.dumps({'id': case['id'], 'verdict': 'perhaps'}))",
        "print(json.dumps({'id': case['id'], 'verdict': 'refuse'}))",
        "print(json.dumps({'id': 'another', 'verdict': 'refuse', 'code': 'BadSignature'}))",
        "sys.exit(3)",
    ],
)
def test_a_subject_that_breaks_the_contract_is_told_so(answer: str) -> None:
    done = run(f'{sys.executable} -c "{LOOP}{answer}"')
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


def test_a_subject_sees_nothing_of_what_must_come_out() -> None:
    keys = "{'id': case['id'], 'verdict': 'unsupported', 'reason': ' '.join(case)}"
    done = run(f'{sys.executable} -c "{LOOP}print(json.dumps({keys}))"', "order/right")
    assert "unsupported: id document root time_ms policy\n" in done.stdout


def test_lines_end_at_newlines_alone() -> None:
    """JSON may have other ends of lines in its texts as they are: U+0085, U+2028, U+2029."""
    between = json.dumps({"verdict": "unsupported", "reason": "a\u0085b\u2028c\u2029d"})
    done = run(f"{stub(between)}".replace("json.dumps(", "json.dumps(ensure_ascii=False, obj="))
    assert done.returncode == 1
    assert "unsupported: a\u0085b\u2028c\u2029d\n" in done.stdout
    assert suite.ask([sys.executable, "-c", "pass"], []) == {}


def test_cases_of_another_format_are_not_asked(tmp_path: pathlib.Path) -> None:
    for format_, status in ((suite.FORMAT, 1), ("attestation-conformance/2", 2)):
        folder = tmp_path / str(status)
        (folder / "cases").mkdir(parents=True)
        shutil.copy(HERE / "__main__.py", folder)
        content = {"format": format_, "cases": []}
        (folder / "cases" / "order.json").write_text(json.dumps(content))
        done = run(stub(STUBS["supports nothing"]), folder=folder)
        # Of the right format there is no case among these, which is no success either.
        assert done.returncode == status
        assert done.stderr.startswith("error: ") == (status == 2)
        assert "Traceback" not in done.stderr
    assert "'attestation-conformance/2'" in done.stderr


LOOP = "import json, sys\nfor line in sys.stdin:\n case = json.loads(line)\n "


def stub(verdict: str) -> str:
    fields = repr(json.loads(verdict)).replace('"', '\\"')
    return f"{sys.executable} -c \"{LOOP}print(json.dumps({{'id': case['id']}} | {fields}))\""


def run(command: str, only: str = "order/", *, folder: pathlib.Path = HERE) -> Any:
    """The runner as anybody starts it."""
    return subprocess.run(
        [sys.executable, str(folder), "--subject", command, "--only", only],
        capture_output=True,
        text=True,
        check=False,
    )
