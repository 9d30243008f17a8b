"""Hot updates, whole: what the owner changes reaches a running enclave within five seconds.

Each change is made as its owner makes it, in another process, and timed from its end until a client
of the enclave sees it. Nothing is restarted unless `[env] reload` says so.
"""

import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support import static_binaries
from tests.support.local_run import LocalRun, Somebody, running

from cloister import crypto
from cloister.platform import local
from cloister.platform.registry import Registry

LIMIT_SECONDS = 5.0  # data-plane.md §4; SPECIFICATION.md
DOCKERFILE = """\
FROM scratch
COPY app /app
EXPOSE 8008
ENTRYPOINT ["/app"]
"""


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    return Somebody(home=tmp_path_factory.mktemp("home"))


def make(folder: pathlib.Path, who: Somebody, reload: str) -> pathlib.Path:
    """A project whose process says what it sees of an update."""
    (folder / "Dockerfile").write_text(DOCKERFILE)
    shutil.copy2(static_binaries.fixture("fixture-rotation"), folder / "app")
    who.run("init", "hello", folder=folder)
    toml = folder / "enclave.toml"
    text = toml.read_text()
    assert "[env]" not in text
    toml.write_text(f'{text}\n[env]\nreload = "{reload}"\n')
    who.run("build", folder=folder)
    who.run("env", "set", "ROTATED", "first", folder=folder)
    return folder


@pytest.fixture(scope="module")
def enclave(
    tmp_path_factory: pytest.TempPathFactory, who: Somebody
) -> Iterator[tuple[LocalRun, pathlib.Path]]:
    """One that is told by SIGHUP."""
    folder = make(tmp_path_factory.mktemp("sighup"), who, "sighup")
    with running(who, folder) as run:
        yield run, folder


def seen(run: LocalRun) -> dict[str, Any]:
    """What the process says; ``now`` as a mapping."""
    status, body = run.curl("/")
    if status != 200:
        return {"status": status, "started": {}, "now": {}, "hangups": -1}
    said: dict[str, Any] = json.loads(body)
    env = json.loads(said["now"])["env"]
    return said | {"now": {entry["name"]: entry.get("value") for entry in env}}


def within_limit(is_true: Callable[[], bool], what: str) -> None:
    started = time.monotonic()
    while not is_true():
        elapsed = time.monotonic() - started
        assert elapsed < LIMIT_SECONDS, f"{what}: not within {LIMIT_SECONDS} s"
        time.sleep(0.05)


def test_a_new_key_is_accepted_and_a_revoked_one_is_not(
    enclave: tuple[LocalRun, pathlib.Path], who: Somebody
) -> None:
    run, folder = enclave
    made = who.json("key", "create", "--name", "rotated", folder=folder)
    key = made["api_key"]
    within_limit(lambda: run.curl("/", key=key)[0] == 200, "a new API key")
    who.run("key", "revoke", made["id"], folder=folder)
    within_limit(lambda: run.curl("/", key=key)[0] == 401, "a revoked API key")
    assert run.curl("/")[0] == 200, "the other key still counts"


def test_a_changed_secret_is_shown_and_the_process_is_told(
    enclave: tuple[LocalRun, pathlib.Path], who: Somebody
) -> None:
    run, folder = enclave
    before = seen(run)
    assert before["now"]["ROTATED"] == "first"
    who.run("env", "set", "ROTATED", "--secret", folder=folder, given='second " secret\n')
    within_limit(lambda: seen(run)["now"].get("ROTATED") == 'second " secret\n', "a changed secret")
    within_limit(lambda: seen(run)["hangups"] == before["hangups"] + 1, "SIGHUP")
    after = seen(run)
    assert after["started"]["ROTATED"] == "first", "the process was not restarted"
    who.run("env", "delete", "ROTATED", folder=folder)
    within_limit(lambda: "ROTATED" not in seen(run)["now"], "a removed variable")


def test_a_change_of_keys_alone_does_not_disturb_the_process(
    enclave: tuple[LocalRun, pathlib.Path], who: Somebody
) -> None:
    run, folder = enclave
    before = seen(run)["hangups"]
    made = who.json("key", "create", "--name", "quiet", folder=folder)
    within_limit(lambda: run.curl("/", key=made["api_key"])[0] == 200, "a new API key")
    assert seen(run)["hangups"] == before


def test_an_added_app_key_opens_what_is_encrypted_to_it(
    enclave: tuple[LocalRun, pathlib.Path],
) -> None:
    run, folder = enclave
    database = local.open_store(folder)
    try:
        public = Registry(database).add_app_key(local.sole_app(database))
    finally:
        database.close()

    def status(key: bytes) -> int:
        body = json.dumps({"a": crypto.encrypt("clear", key)})
        return run.curl("/", "-d", body, "-H", "content-type: application/json")[0]

    within_limit(lambda: status(public) == 200, "an added app key")
    assert status(bytes.fromhex(run.said["app_public_key"])) == 200, "the old one still opens"
    foreign = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = foreign.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    assert status(point) == 422


def test_a_process_that_wants_it_is_started_again_with_the_new_values(
    tmp_path: pathlib.Path, who: Somebody
) -> None:
    folder = make(tmp_path, who, "restart")
    with running(who, folder) as run:
        assert seen(run)["started"]["ROTATED"] == "first"
        who.run("env", "set", "ROTATED", "second", folder=folder)
        within_limit(
            lambda: seen(run)["started"].get("ROTATED") == "second", "a restart with the new value"
        )
        assert seen(run)["hangups"] == 0
        # A restart that was asked for is no failure: the next one does not take longer.
        for number in range(8):
            who.run("env", "set", "ROTATED", f"value {number}", folder=folder)
            within_limit(
                lambda number=number: seen(run)["started"].get("ROTATED") == f"value {number}",
                f"restart {number}",
            )
        reported = who.json("platform", "events", folder=folder)["events"]
        kinds = [one["kind"] for one in reported]
        assert kinds.count("process-reload") == 9
        assert "process-exit" not in kinds
