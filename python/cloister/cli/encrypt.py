"""``cloister encrypt``: make ciphertexts for an app, with its public key alone."""

import os
import pathlib
import sys
from typing import Annotated

import typer

from cloister import crypto
from cloister.cli import output, settings
from cloister.errors import KeyFileError, MissingInput

_MAX_KEY_FILE_BYTES = 4096


def encrypt(  # noqa: PLR0913 - an option is an argument
    value: Annotated[
        str | None, typer.Argument(help="The value; `-` or nothing reads standard input.")
    ] = None,
    *,
    as_document: Annotated[
        bool, typer.Option("--document", help="The input is JSON: encrypt the values in it.")
    ] = False,
    kind: Annotated[
        str, typer.Option("--type", help="Type of a single value: string, number or boolean.")
    ] = "string",
    public_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|BASE64",
            help="The app's public key; else that of the platform or local store.",
        ),
    ] = None,
    role: Annotated[str | None, typer.Option(help="Data role: 1 to 20 of a-z, 0-9, -.")] = None,
    config: Annotated[
        pathlib.Path, typer.Option(help="enclave.toml, whose local store has the key.")
    ] = pathlib.Path("enclave.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Encrypt a value, or the values of a JSON document, for an app.

    Only the public key is needed, and nothing leaves this machine. A value on the command line can
    be seen by other users of the machine and stays in the shell's history: use standard input for
    secrets.

    Example:
      cloister encrypt < secret.txt
      echo '{"card": 4242424242424242}' | cloister encrypt --document
    """
    if kind not in ("string", "number", "boolean"):
        raise typer.BadParameter("a type is string, number or boolean", param_hint="--type")
    if value is None or value == "-":
        # `echo` ends what it writes with a line feed that nobody means.
        clear = sys.stdin.buffer.read().removesuffix(b"\n")
    else:
        clear = os.fsencode(value)
    key = _public_key(public_key, config)
    if as_document:
        sealed = crypto.encrypt_json(clear, key, role=role).decode()
    else:
        text = clear if kind == "string" else clear.strip()
        sealed = crypto.encrypt_literal(text, key, kind=kind, role=role)
    output.show({"ciphertext": sealed}, as_json=as_json, text=sealed)


def _public_key(given: str | None, config: pathlib.Path) -> bytes:
    """From a file, from the command line, from the platform, or from the local store."""
    if given is None and settings.load().platform_url is not None:
        from cloister.cli import _owner  # noqa: PLC0415 - and so does this

        with _owner.opened(config.parent) as owner:
            return bytes.fromhex(owner.app(_owner.app_of(owner, config))["public_key"])
    if given is None:
        from cloister.platform import local  # noqa: PLC0415 - the store costs 200 ms to import

        folder = config.resolve().parent
        if not local.store_directory(folder).is_dir():
            raise MissingInput(
                f"there is no local store beside `{config}`",
                hint="run `cloister init`, or give --public-key",
            )
        return local.app_public_key(folder)
    path = pathlib.Path(given)
    if not path.is_file():
        return crypto.read_public_key(given)
    content = path.read_bytes()
    if len(content) > _MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"`{path}` is too long to be a public key")
    if len(content) == crypto.PUBLIC_KEY_BYTES:
        return content
    return crypto.read_public_key(content.decode("ascii", "replace"))
