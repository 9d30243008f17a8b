"""T-01 and T-02 over HTTP/2: no header list and no frame becomes a line that was not meant.

The cases are in ``tests/vectors/http2``. Each is played between requests of other clients, and it
is checked what was answered or with which code it was reset, every byte that the user process
received, and that the next request on the same connection is served where the case allows one.
"""

import pathlib
from collections.abc import Iterator

import pytest
from tests.support import http2_cases
from tests.support.dev_process import DevProcess, dev_process
from tests.support.exchanges import problems
from tests.support.recording_process import RecordingProcess, recording

CASES = dict(http2_cases.load())
LIMITS = "[limits]\nupstream_response = 700\nbody_idle = 3000\n"


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
def test_a_header_list_has_one_meaning_or_is_refused(
    name: str, plane: DevProcess, process: RecordingProcess
) -> None:
    case = CASES[name]
    observed, reset, goaway = http2_cases.play(case, plane, process)
    found = list(problems(case.expected, observed, is_rechunked=True))
    if (reset, goaway) != (case.reset, case.goaway):
        found.append(f"ended with {reset} and {goaway}, not {case.reset} and {case.goaway}")
    assert not found


def test_the_corpus_is_as_large_as_it_is_said_to_be_and_has_twins() -> None:
    refused = sum(case.is_refused for case in CASES.values())
    assert refused >= 60
    assert len(CASES) - refused >= 20
