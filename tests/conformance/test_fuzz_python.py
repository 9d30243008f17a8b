"""The readers in Python, fuzzed for a minute each: ``fuzz/python``, with its corpus."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TARGETS = sorted(path.stem for path in (ROOT / "fuzz" / "python" / "corpus").iterdir())
SECONDS = 60
INPUT_SECONDS = 20
MEMORY_MIB = 1500


@pytest.mark.conformance
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_a_refusal_comes_of_hostile_input(target: str, tmp_path: pathlib.Path) -> None:
    """The corpus, then what grows from it; an input that fails is shown in the message."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("NOT FUZZED: atheris is missing; .venv/bin/pip install --group fuzz")
    corpus = ROOT / "fuzz" / "python" / "corpus" / target
    assert list(corpus.iterdir())
    command = [
        sys.executable,
        str(ROOT / "fuzz" / "python" / f"{target}.py"),
        f"-max_total_time={SECONDS}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-max_len=16384",
        f"-artifact_prefix={tmp_path}/",
        str(tmp_path / "new"),
        str(corpus),
    ]
    (tmp_path / "new").mkdir()
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr
