"""Backups that a platform signed and that still do not fit: nothing of them becomes a store."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Uuid
from tests.support.older_stores import SCHEMAS
from tests.support.platform_world import World
from tests.support.restored import assert_no_store, prepared, restored

from cloister.errors import InputError
from cloister.platform import backup, schemas
from cloister.platform.tables import Base
from cloister.platform.vault import Vault

Lines = list[Any]


def signed(lines: Lines, vault: Vault) -> bytes:
    """The lines as a file that a platform with this master key would have written."""
    text = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in lines[:-1])
    authenticator = vault.authenticator("backup")
    authenticator.update(text)
    end = {
        "rows": sum(isinstance(one, list) for one in lines),
        "sha256": hashlib.sha256(text).hexdigest(),
        "hmac": authenticator.finalize().hex(),
    }
    return text + json.dumps(end, separators=(",", ":")).encode() + b"\n"


def place_of(lines: Lines, table: str) -> int:
    """Where the head of a table is."""
    return next(
        number
        for number, line in enumerate(lines)
        if isinstance(line, dict) and line.get("table") == table
    )


def older_head(lines: Lines) -> None:
    """The columns are of the newest schema, the head is not."""
    lines[0]["schema"] = 1


def older_row(lines: Lines) -> None:
    """The store's own row says another schema than the head."""
    at = place_of(lines, "store")
    lines[at + 1][lines[at]["columns"].index("schema_version")] = 1


def other_class(lines: Lines) -> None:
    """The store's own row says another class than the head."""
    at = place_of(lines, "store")
    lines[at + 1][lines[at]["columns"].index("trust_class")] = "production"


def no_store_row(lines: Lines) -> None:
    """Nothing says what the store is."""
    del lines[place_of(lines, "store") + 1]


def without_table(lines: Lines) -> None:
    """A table that this schema has."""
    del lines[place_of(lines, "object_heads")]


def unknown_table(lines: Lines) -> None:
    """A table that this schema lacks."""
    lines.insert(-1, {"table": "more", "columns": ["id"]})


def table_twice(lines: Lines) -> None:
    """Rows of one table in two places."""
    lines.insert(-1, lines[place_of(lines, "activity")])


def without_column(lines: Lines) -> None:
    """A column that may be absent in a row, but not in the table."""
    at = place_of(lines, "deployments")
    column = lines[at]["columns"].index("until_ms")
    for line in lines[at : at + 2]:
        del (line["columns"] if isinstance(line, dict) else line)[column]


def unknown_column(lines: Lines) -> None:
    """A column that this schema lacks."""
    at = place_of(lines, "teams")
    lines[at]["columns"].append("more")
    lines[at + 1].append(1)


def short_row(lines: Lines) -> None:
    """Fewer values than columns."""
    lines[place_of(lines, "teams") + 1].pop()


def no_base64(lines: Lines) -> None:
    """Bytes that are none."""
    at = place_of(lines, "app_keys")
    lines[at + 1][lines[at]["columns"].index("public")] = "*"


def no_uuid(lines: Lines) -> None:
    """A UUID that is none."""
    lines[place_of(lines, "teams") + 1][0] = "local"


def not_a_line(lines: Lines) -> None:
    """Neither a head nor a row."""
    lines.insert(-1, "more")


@pytest.mark.parametrize(
    "spoil",
    [
        older_head,
        older_row,
        other_class,
        no_store_row,
        without_table,
        unknown_table,
        table_twice,
        without_column,
        unknown_column,
        short_row,
        no_base64,
        no_uuid,
        not_a_line,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_backup_that_does_not_fit_its_schema_makes_no_store(
    world: World, tmp_path: pathlib.Path, spoil: Callable[[Lines], None]
) -> None:
    file = tmp_path / "backup"
    backup.write(world.database, file, now_ms=7)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert signed(lines, world.database.vault) == file.read_bytes()
    spoil(lines)
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(signed(lines, world.database.vault))
    assert backup.check(spoilt)  # whole, as far as one can see without the master key
    folder = prepared(tmp_path / "restored", world.database)
    with pytest.raises(InputError, match="is not a backup"):
        restored(folder, spoilt)
    assert_no_store(folder)
    restored(folder, file).close()


def test_a_backup_of_a_newer_schema_makes_no_store(world: World, tmp_path: pathlib.Path) -> None:
    """A program that does not know a schema cannot know what of it has to be kept."""
    file, newer = tmp_path / "backup", tmp_path / "newer"
    backup.write(world.database, file, now_ms=7)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    at = place_of(lines, "store")
    lines[0]["schema"] = SCHEMAS[-1] + 1
    lines[at + 1][lines[at]["columns"].index("schema_version")] = SCHEMAS[-1] + 1
    newer.write_bytes(signed(lines, world.database.vault))
    folder = prepared(tmp_path / "restored", world.database)
    with pytest.raises(
        InputError, match="has schema 4, this program reads schemas up to 3"
    ) as said:
        restored(folder, newer)
    assert "the version of cloister that wrote it" in str(said.value.hint)
    assert_no_store(folder)
    restored(folder, file).close()


def test_the_tables_of_the_newest_schema_are_those_of_the_models() -> None:
    """What a backup has is found by the migrations: it must be all that the models have."""
    found = {table.name: table for table in schemas.tables(SCHEMAS[-1])}
    models = {table.name: table for table in Base.metadata.sorted_tables}
    assert models.keys() - found.keys() == {"challenges"}
    assert found.keys() < models.keys()
    for name, table in found.items():
        columns = {one.name: isinstance(one.type, Uuid) for one in table.columns}
        assert columns == {one.name: isinstance(one.type, Uuid) for one in models[name].columns}


def test_each_schema_has_the_tables_of_its_migration() -> None:
    """The newest ones would be wrong for an older backup."""
    found = [{table.name for table in schemas.tables(schema)} for schema in SCHEMAS]
    assert found[1] - found[0] == {"tokens", "enclave_events"}
    assert found[2] - found[1] == {"sealing_secrets", "object_heads"}
    (store,) = [table for table in schemas.tables(1) if table.name == "store"]
    assert "key_wrapped" not in store.columns
