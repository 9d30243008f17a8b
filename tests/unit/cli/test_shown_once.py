"""Credentials that are shown once: one that nobody saw does not work."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest


def started(folder: pathlib.Path, words: list[str], stdout: int) -> tuple[int, bytes, str]:
    """Status, standard output where it is a pipe, and standard error of ``python -m cloister``."""
    removed = ("CLOISTER_PLATFORM_URL", "CLOISTER_API_KEY", "EV_API_KEY", "EV_APP_UUID")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "cloister", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": paths, "CLOISTER_HOME": str(folder / "home")},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout or b"", done.stderr.decode()


def said(folder: pathlib.Path, *words: str) -> Any:
    status, out, err = started(folder, [*words, "--json"], subprocess.PIPE)
    assert status == 0, err
    return json.loads(out)


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(("leads_to", "status"), [(full_disk, 74), (closed_pipe, 141)])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_credential_that_cannot_be_printed_is_revoked(
    tmp_path: pathlib.Path, leads_to: Callable[[], int], status: int, *, as_json: bool
) -> None:
    said(tmp_path, "init", "hello")
    said(tmp_path, "platform", "init", "--dir", "platform")
    key = ["key", "create", "--name", "k"]
    token = ["platform", "token", "create", "--name", "t", "--scope", "owner", "--dir", "platform"]
    again = ["platform", "init", "--dir", "platform"]
    for words in (key, token, again):
        said(tmp_path, *words)
        stdout = leads_to()
        try:
            ended = started(tmp_path, [*words, *(["--json"] if as_json else [])], stdout)
        finally:
            os.close(stdout)
        assert ended[0] == status, ended
        assert "is revoked, as it could not be printed" in ended[2]
    keys = said(tmp_path, "key", "list")["api_keys"]
    assert [one["state"] for one in keys] == ["active", "revoked"]
    tokens = said(tmp_path, "platform", "token", "list", "--dir", "platform")["tokens"]
    states = [(one["name"], one["state"]) for one in tokens]
    assert sorted(states) == [
        ("owner", "active"),
        ("owner", "active"),
        ("owner", "revoked"),
        ("t", "active"),
        ("t", "revoked"),
    ]
