"""T-24: who can write to a backup, without the master key, gets nothing restored of their own."""

import hashlib
import json
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from tests.support.platform_world import World, make_world
from tests.support.restored import assert_no_store, prepared, restored

from cloister.errors import InputError
from cloister.platform import backup
from cloister.platform.owner import Owner
from cloister.platform.tokens import OWNER, Tokens

Lines = list[Any]
SECRET = "cp_" + "0" * 16 + "_" + "A" * 43


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = make_world(tmp_path / "world")
    yield made
    made.database.close()


def rows_of(lines: Lines, table: str) -> tuple[int, list[str]]:
    """Where the rows of a table begin, and its columns."""
    for number, line in enumerate(lines):
        if isinstance(line, dict) and line.get("table") == table:
            return number + 1, line["columns"]
    raise AssertionError(f"the backup has no table `{table}`")


def add_token(lines: Lines) -> None:
    """A token of an owner, which the forger knows."""
    at, columns = rows_of(lines, "tokens")
    digest = hashlib.sha256(SECRET.encode()).digest()
    made = dict(zip(columns, lines[at], strict=True))
    made |= {"id": "0" * 16, "sha256": backup._texts([digest])[0]}
    lines.insert(at, [made[name] for name in columns])


def add_image(lines: Lines) -> None:
    """An image of the forger's that secrets would be released to."""
    at, columns = rows_of(lines, "deployments")
    made = dict(zip(columns, lines[at], strict=True))
    made |= {"id": "dep_forged", "pcrs": dict.fromkeys("012", "ab" * 48)}
    lines.insert(at, [made[name] for name in columns])


def undo_revocation(lines: Lines) -> None:
    """A token that was revoked before the backup."""
    at, columns = rows_of(lines, "tokens")
    lines[at][columns.index("revoked_ms")] = None


def other_enclave(lines: Lines) -> None:
    """An enclave under another name for programs."""
    at, columns = rows_of(lines, "enclaves")
    lines[at][columns.index("uuid")] = str(uuid.uuid4())


def younger(lines: Lines) -> None:
    """The age is what the restore warns with."""
    lines[0]["created_ms"] += 1


def ended(lines: Lines) -> bytes:
    """The lines as a file whose count and checksum are right; the rest of its end is as it was."""
    text = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in lines[:-1])
    count = sum(isinstance(one, list) for one in lines)
    end = lines[-1] | {"rows": count, "sha256": hashlib.sha256(text).hexdigest()}
    return text + json.dumps(end, separators=(",", ":")).encode() + b"\n"


def written(world: World, path: pathlib.Path) -> Lines:
    """The lines of a backup of a platform with a token that was revoked."""
    tokens = Tokens(world.database, world.clock)
    tokens.revoke(tokens.create("old", scopes=[OWNER]).record.id)
    backup.write(world.database, path, now_ms=7)
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("forge", [add_token, add_image, undo_revocation, other_enclave, younger])
def test_t24_an_altered_backup_with_a_right_checksum_is_refused(
    world: World, tmp_path: pathlib.Path, forge: Callable[[Lines], None]
) -> None:
    file = tmp_path / "backup"
    lines = written(world, file)
    assert ended(lines) == file.read_bytes()  # else a refusal is of this test's own making
    forge(lines)
    forged = tmp_path / "forged"
    forged.write_bytes(ended(lines))
    assert backup.check(forged).rows in {backup.check(file).rows, backup.check(file).rows + 1}
    folder = prepared(tmp_path / "restored", world.database)
    with pytest.raises(InputError, match="was altered"):
        restored(folder, forged)
    assert_no_store(folder)
    database = restored(folder, file)
    assert Owner(database).enclave(world.uuid)["name"] == "hello"
    assert Tokens(database, world.clock).find(SECRET) is None
    assert [one["state"] for one in Owner(database).tokens()] == ["revoked"]
    database.close()


@pytest.mark.parametrize("found", [None, "", "zz", "00" * 32, 5, "é"])
def test_t24_an_end_without_the_right_authentication_is_refused(
    world: World, tmp_path: pathlib.Path, found: object
) -> None:
    file = tmp_path / "backup"
    lines = written(world, file)
    lines[-1]["hmac"] = found
    (tmp_path / "forged").write_bytes(ended(lines))
    folder = prepared(tmp_path / "restored", world.database)
    with pytest.raises(InputError, match="was altered"):
        restored(folder, tmp_path / "forged")
    assert_no_store(folder)
    restored(folder, file).close()


def test_t24_a_backup_of_somebody_elses_platform_is_refused(
    world: World, tmp_path: pathlib.Path
) -> None:
    """It is right in itself, under a master key that is not the owner's."""
    forger = make_world(tmp_path / "forger")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    backup.write(forger.database, theirs, now_ms=7)
    written(world, ours)
    folder = prepared(tmp_path / "restored", world.database)
    with pytest.raises(InputError, match="cannot be opened with this master key"):
        restored(folder, theirs)
    assert_no_store(folder)
    # Nor with the check value of ours, which is in every backup of ours, in its place.
    lines = [json.loads(line) for line in theirs.read_bytes().splitlines()]
    mine = [json.loads(line) for line in ours.read_bytes().splitlines()]
    at, columns = rows_of(lines, "store")
    sealed = columns.index("key_check_sealed")
    lines[at][sealed] = mine[rows_of(mine, "store")[0]][sealed]
    theirs.write_bytes(ended(lines))
    with pytest.raises(InputError, match="was altered"):
        restored(folder, theirs)
    assert_no_store(folder)
    restored(folder, ours).close()
    forger.database.close()


class Exchanged(type(pathlib.Path())):  # type: ignore[misc]
    """A file that somebody exchanges for another after it was opened some times."""

    files: ClassVar[list[pathlib.Path]]

    def open(self, *arguments: Any, **more: Any) -> Any:
        """Opens what is there at this moment."""
        return self.files.pop(0).open(*arguments, **more)


def test_t24_a_backup_that_is_exchanged_after_it_was_checked_is_refused(
    world: World, tmp_path: pathlib.Path
) -> None:
    """Whichever time it is opened: what is restored is what was authenticated, byte for byte."""
    file, forged = tmp_path / "backup", tmp_path / "forged"
    lines = written(world, file)
    add_token(lines)
    forged.write_bytes(ended(lines))
    folder = prepared(tmp_path / "restored", world.database)
    for times in (1, 2, 3):
        Exchanged.files = [file] * times + [forged] * 9
        with pytest.raises(InputError, match="was altered"):
            restored(folder, Exchanged(tmp_path / "exchanged"))
        assert_no_store(folder)
    Exchanged.files = [file] * 4
    database = restored(folder, Exchanged(tmp_path / "exchanged"))
    assert Exchanged.files == []
    assert Tokens(database, world.clock).find(SECRET) is None
    database.close()
