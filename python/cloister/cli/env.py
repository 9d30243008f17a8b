"""``cloister env``: variables of an enclave's process.

They are not part of the image: a change keeps the PCRs. A restart of the enclave applies it, or
``[env] reload`` does. The value of a secret is encrypted here, for the app's key, before it is
stored anywhere; the enclave opens it.
"""

import base64
import io
import os
import pathlib
import sys
from typing import Annotated, Any
from uuid import UUID

import typer

from cloister import config as configuration
from cloister import crypto
from cloister.cli import _owner, _streams, output
from cloister.cli._owner import AnyOwner
from cloister.errors import ConfigError, InputError, MissingInput, UsageError
from cloister.platform import variables

_Config = Annotated[
    pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Secret = Annotated[bool, typer.Option("--secret", help="Encrypt here; it is never shown again.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and underscores.")]


def set_variable(  # noqa: PLR0913 - an option is an argument
    name: _Name,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="Not for secrets; else standard input.")
    ] = None,
    *,
    secret: _Secret = False,
    file: Annotated[
        pathlib.Path | None, typer.Option(metavar="FILE", help="Take the value from a file.")
    ] = None,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Set a variable of the enclave's process.

    The value is taken to the byte, a line feed at its end included: from FILE, from standard input,
    or from VALUE. On a terminal it is asked for. At most 96 KiB, 94 KiB for a secret, no NUL byte;
    1024 variables of 512 KiB together. A restart of the enclave applies it, or `[env] reload` of
    enclave.toml does.

    Example:
      cloister env set GREETING hello
      cloister env set --secret TLS_KEY < key.pem
    """
    clear = _value(value, file, is_secret=secret)
    with _owner.opened(config.parent) as owner:
        enclave = _owner.enclave_of(config)
        made = _stored(owner, enclave, {name: clear}, is_secret=secret)
        owner.set_variables(enclave, made)
    kind = "secret" if secret else "variable"
    output.show(
        {"name": name, "secret": secret, "bytes": len(clear)},
        as_json=as_json,
        text=f"{kind} `{name}` set, {len(clear)} bytes; {_applied(config)}",
    )


def get(
    name: _Name, *, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False
) -> None:
    """Print the value of a variable, to the byte. A secret cannot be shown.

    Example:
      cloister env get GREETING
    """
    with _owner.opened(config.parent) as owner:
        found = owner.variable(_owner.enclave_of(config), name)
    if found["value"] is None:
        raise UsageError(f"`{name}` is a secret: nobody but the enclave can open it")
    value = base64.b64decode(found["value"])
    if as_json:
        shown = {"name": name, "value": _text(value), "base64": found["value"]}
        output.show(shown, as_json=True)
    else:
        output.raw(value)


def list_variables(
    *, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False
) -> None:
    """List the variables by name, without their values.

    Example:
      cloister env list
    """
    with _owner.opened(config.parent) as owner:
        found = owner.variables(_owner.enclave_of(config))
    shown = [{name: one[name] for name in ("name", "secret", "updated")} for one in found]
    text = "\n".join(
        f"{one['name']}  {'secret' if one['secret'] else 'plain'}  {one['updated']}"
        for one in shown
    )
    output.show({"variables": shown}, as_json=as_json, text=text or "there are no variables")


def delete(
    name: _Name, *, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False
) -> None:
    """Delete a variable.

    A restart of the enclave applies it, or `[env] reload` of enclave.toml does.

    Example:
      cloister env delete GREETING
    """
    with _owner.opened(config.parent) as owner:
        owner.delete_variable(_owner.enclave_of(config), name)
    output.show(
        {"name": name}, as_json=as_json, text=f"variable `{name}` deleted; {_applied(config)}"
    )


def import_file(
    file: Annotated[
        pathlib.Path, typer.Argument(metavar="FILE", help="A .env file; `-`: standard input.")
    ],
    *,
    secret: _Secret = False,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    r"""Set every variable of a .env file: all of them, or none when one cannot be set.

    NAME=VALUE on a line, as python-dotenv reads it and not as a shell does: `$` stands for itself,
    and so does a backslash without quotes. Inside "..." \n is a line feed, as are \t, \r, \", \\
    and their like what they name; inside '...' only \' and \\ are. Both may go on over lines.
    The file is UTF-8; other bytes come in with `env set`.

    Example:
      cloister env import --secret .env
    """
    found = _read_dotenv(_read(file))
    with _owner.opened(config.parent) as owner:
        enclave = _owner.enclave_of(config)
        owner.set_variables(enclave, _stored(owner, enclave, found, is_secret=secret))
    output.show(
        {"names": list(found), "secret": secret},
        as_json=as_json,
        text=f"{len(found)} variables set; {_applied(config)}",
    )


def _applied(config: pathlib.Path) -> str:
    """What applies a change to the enclaves that run, as enclave.toml has it for the next build."""
    return APPLIED[configuration.load(config).env.reload]


def _stored(
    owner: AnyOwner, enclave: UUID, found: dict[str, bytes], *, is_secret: bool
) -> list[dict[str, Any]]:
    """Variables as they are stored: secrets as ciphertexts of the app's newest key."""
    key = bytes.fromhex(owner.enclave(enclave)["app_public_key"]) if is_secret else b""
    stored = []
    for name, clear in found.items():
        if is_secret:
            if b"\0" in clear:
                raise ConfigError(f"the value of `{name}` has a NUL byte: no process can have it")
            if len(clear) > variables.MAX_SECRET_BYTES:
                raise ConfigError(
                    f"the value of the secret `{name}` is {len(clear)} bytes long, the limit is"
                    f" {variables.MAX_SECRET_BYTES}"
                )
        value = crypto.encrypt_literal(clear, key).encode() if is_secret else clear
        # Checked before anything leaves this machine.
        variables.check(variables.NewVariable(name=name, value=value, secret=is_secret))
        stored.append(
            {"name": name, "value": base64.b64encode(value).decode(), "secret": is_secret}
        )
    return stored


def _value(value: str | None, file: pathlib.Path | None, *, is_secret: bool) -> bytes:
    if value is not None and file is not None:
        raise UsageError("the value comes from VALUE or from --file, not from both")
    if value is not None and value != "-":
        if is_secret:
            raise UsageError(
                "a secret on the command line is seen by other users and stays in the history",
                hint="give it on standard input, or with --file",
            )
        return os.fsencode(value)
    if file is not None:
        return _read(file)
    if value is None and sys.stdin.isatty():
        return str(typer.prompt("value", hide_input=is_secret, err=True)).encode()
    return _streams.standard_input()


def _read(path: pathlib.Path) -> bytes:
    if str(path) == "-":
        return _streams.standard_input()
    try:
        return path.read_bytes()
    except OSError as problem:
        raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from None


def _read_dotenv(content: bytes) -> dict[str, bytes]:
    """Variables of a .env file; a line that is none is an error that names it.

    Raises:
        InputError: Not UTF-8, a line that cannot be read, a name without a value, or nothing.
    """
    from dotenv.parser import parse_stream  # noqa: PLC0415 - for this command alone

    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InputError(
            "the file is not UTF-8", hint="`cloister env set` takes any bytes"
        ) from None
    found: dict[str, bytes] = {}
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line
        if binding.error or (binding.key is not None and binding.value is None):
            raise InputError(f"line {line} of the file is not NAME=VALUE")
        if binding.key is not None and binding.value is not None:
            if binding.key in found:
                raise InputError(f"line {line} of the file names a variable again")
            found[binding.key] = binding.value.encode()
    if not found:
        raise InputError("the file has no variables")
    return found


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


APPLIED = {
    "none": "a restart of the enclave applies it",
    "restart": "enclaves that run start their process again with it",
    "sighup": "enclaves that run send their process a SIGHUP; a restart gives it the new values",
}
