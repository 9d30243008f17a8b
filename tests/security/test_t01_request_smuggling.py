"""T-01 and T-02: messages that two programs could read in two ways, against the real process.

The cases are in ``tests/vectors/http1``. Each is played between two requests of another client, and
it is checked what was answered, what became of the connection, every byte that the user process
received, and that the other clients got their own answers. Requests are played a second time byte
by byte, because what is decided must not depend on where the network cuts.
"""

import pathlib
from collections.abc import Iterator

import pytest
from tests.support import http1_cases
from tests.support.dev_process import DevProcess, dev_process
from tests.support.exchanges import problems
from tests.support.http1_cases import Case
from tests.support.recording_process import RecordingProcess, recording

CASES = dict(http1_cases.load())
LIMITS = "[limits]\nbody = 2000000\nupstream_response = 700\nbody_idle = 3000\n"


@pytest.fixture(scope="module")
def process() -> Iterator[RecordingProcess]:
    with recording() as running:
        yield running


@pytest.fixture(scope="module")
def plane(
    process: RecordingProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevProcess]:
    folder: pathlib.Path = tmp_path_factory.mktemp("t01")
    with dev_process(process.address, folder, tables=LIMITS) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_a_message_has_one_meaning_or_is_refused(
    name: str, plane: DevProcess, process: RecordingProcess
) -> None:
    case = CASES[name]
    assert not list(problems(case.expected, http1_cases.play(case, plane, process)))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_cut])
def test_its_meaning_does_not_depend_on_where_it_is_cut(
    name: str, plane: DevProcess, process: RecordingProcess
) -> None:
    case = CASES[name]
    observed = http1_cases.play(case, plane, process, cut=True)
    assert not list(problems(case.expected, observed, is_rechunked=True))


def test_the_corpus_is_as_large_as_it_is_said_to_be_and_has_twins() -> None:
    def count(kind: str, *, refused: bool) -> int:
        return sum(
            case.is_refused is refused and name.startswith("responses/") is (kind == "responses")
            for name, case in CASES.items()
        )

    assert count("requests", refused=True) >= 150
    assert count("responses", refused=True) >= 45
    assert count("requests", refused=False) >= 50
    assert count("responses", refused=False) >= 10
    for file in {name.partition("/")[0] for name in CASES}:
        of_file: list[Case] = [case for name, case in CASES.items() if name.startswith(f"{file}/")]
        assert {case.is_refused for case in of_file} == {True, False}, file


def test_the_judge_sees_each_kind_of_fault(plane: DevProcess, process: RecordingProcess) -> None:
    """What is expected of one case is not true of another; a judge that always agrees fails."""
    refused, accepted = CASES["framing/cl-te"], CASES["framing/chunked"]
    for played, other in ((refused, accepted), (accepted, refused)):
        observed = http1_cases.play(played, plane, process)
        assert not list(problems(played.expected, observed))
        found = " ".join(problems(other.expected, observed))
        assert "answered" in found
        assert "the connection was" in found
        assert "the user process received" in found
