"""``cloister platform backup``, ``restore`` and ``migrate``: on the platform's own machine."""

import datetime as dt
import pathlib
from typing import Annotated

import typer

from cloister.cli import output, settings
from cloister.errors import KeyFileError, MissingInput, StoreError, UsageError
from cloister.platform import backup as backups
from cloister.platform import database as databases
from cloister.platform import restoring
from cloister.platform.clock import from_ms, system, to_ms
from cloister.platform.master_key import key_service
from cloister.platform.server import configuration, setup
from cloister.platform.vault import read_master_key

_Dir = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", metavar="DIR", help="Its folder; default: platform in CLOISTER_HOME."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def backup(
    file: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="It must not exist.")],
    *,
    directory: _Dir = None,
    as_json: _Json = False,
) -> None:
    """Write a backup of the store, which may be in use. The master key is not in it.

    Private values are in it as they are in the store, sealed. It can be restored into SQLite and
    into PostgreSQL, by this version of cloister and by newer ones. A store of an older schema is
    backed up as it is, before `migrate` changes it.

    Example:
      cloister platform backup /backup/platform-2026-05-04
    """
    config = configuration.load(_folder(directory))
    database = databases.open_unmigrated(config.folder, config.trust_class, url=config.database)
    try:
        made = backups.write(database, file, now_ms=to_ms(system()))
    finally:
        database.close()
    output.note("without the master key it is worth nothing: keep a copy of that apart from it")
    output.show(
        {"file": str(file), "rows": made.rows, "schema": made.schema_version},
        as_json=as_json,
        text=f"{made.rows} rows in `{file}`",
    )


def restore(
    file: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="The backup.")],
    *,
    directory: _Dir = None,
    master_key: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="The master key, when it is not in the folder yet."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Restore a backup into the store that platform.toml names, which must not exist.

    A backup of an older schema is brought to that of this program. Enclaves that run go on: the
    versions of their bundles jump ahead. What was revoked or ended after the backup works again,
    until it is revoked again. A file that no platform with this master key wrote is refused. A
    restore that fails leaves no store, and no master key that was not there.

    Example:
      cloister platform restore /backup/platform-2026-05-04 --master-key /safe/master.key
    """
    folder = _folder(directory)
    config = configuration.load(folder)
    found = backups.check(file)
    is_file = config.master_key == "file"
    if master_key is not None and not is_file:
        raise UsageError(f"--master-key: platform.toml has it at `{config.master_key}`")
    key = None if master_key is None else _key_in(master_key)
    if is_file and key is None and not (folder / databases.MASTER_KEY_FILE).exists():
        raise MissingInput(
            f"there is no master key in `{folder}`", hint="--master-key FILE brings it"
        )
    now_ms = to_ms(system())
    restoring.restore(
        folder,
        file,
        config.trust_class,
        now_ms=now_ms,
        url=config.database,
        wraps_key=None if is_file else key_service(config.master_key),
        master_key=key,
    )
    setup.open_store(config).close()
    taken = from_ms(found.created_ms)
    age = dt.timedelta(milliseconds=now_ms - found.created_ms)
    output.warn(
        f"the backup is {age.total_seconds() / 3600:.1f} hours old: API keys, tokens and"
        " deployments that were ended since then work again; end them again"
    )
    output.show(
        {
            "file": str(file),
            "rows": found.rows,
            "taken": taken.isoformat(),
            "schema": found.schema_version,
        },
        as_json=as_json,
        text=f"{found.rows} rows of {taken:%Y-%m-%d %H:%M:%S} UTC restored into `{folder}`",
    )


def migrate(*, directory: _Dir = None, as_json: _Json = False) -> None:
    """Bring the store to the schema of this program; write a backup first.

    It is one transaction: a migration that fails or is killed leaves the store as it was.

    Example:
      cloister platform migrate
    """
    config = configuration.load(_folder(directory))
    setup.open_store(config, migrates=True).close()
    version = databases.SCHEMA_VERSION
    output.show({"schema": version}, as_json=as_json, text=f"the store has schema {version}")


def _folder(directory: pathlib.Path | None) -> pathlib.Path:
    return (directory or settings.load().platform).absolute()


def _key_in(path: pathlib.Path) -> bytes:
    """The master key in a file of the caller's.

    Raises:
        KeyFileError: It is readable by others, or holds none.
        MissingInput: There is none.
    """
    try:
        return read_master_key(path)
    except StoreError as problem:
        kind = KeyFileError if path.exists() else MissingInput
        raise kind(problem.message, hint=problem.hint) from problem
