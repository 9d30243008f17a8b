"""``cloister encrypt``: make ciphertexts for an app, with its public key alone."""

import os
import pathlib
from typing import Annotated

import typer

from cloister import crypto
from cloister.cli import _app_keys, _streams, output


def encrypt(  # noqa: PLR0913 - an option is an argument
    value: Annotated[
        str | None, typer.Argument(help="The value; `-` or nothing reads standard input.")
    ] = None,
    *,
    as_document: Annotated[
        bool, typer.Option("--document", help="The input is JSON: encrypt the values in it.")
    ] = False,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="Type of a single value, not of a document: string (default), number or boolean.",
        ),
    ] = None,
    file: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE|-", help="Encrypt a file, of any length; `-` is a pipe."),
    ] = None,
    output_file: Annotated[
        pathlib.Path | None,
        typer.Option("--output", "-o", help="Where an encrypted file goes; else a pipe."),
    ] = None,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --file, needs --output.")
    ] = False,
) -> None:
    """Encrypt a value, the values of a JSON document, or a file, for an app.

    Only the public key is needed, and nothing leaves this machine. A value on the command line can
    be seen by other users of the machine and stays in the shell's history: use standard input for
    secrets.

    Example:
      cloister encrypt < secret.txt
      echo '{"card": 4242424242424242}' | cloister encrypt --document
      cloister encrypt --file scan.pdf --output scan.pdf.enc
    """
    if file is not None:
        _only_a_file(value, as_document=as_document, kind=kind, role=role)
        _streams.json_needs_a_file(as_json=as_json, path=output_file)
        key = _app_keys.public_key(public_key, config)
        with (
            _streams.reading(file) as source,
            _streams.writing(output_file, mode=_streams.PUBLIC) as target,
        ):
            crypto.encrypt_file(source, target, key)
        if as_json:
            output.show({"output": str(output_file)}, as_json=True)
        return
    if output_file is not None:
        raise typer.BadParameter("is for `--file`", param_hint="--output")
    if as_document and kind is not None:
        raise typer.BadParameter(
            "cannot be combined with --document, whose values have types", param_hint="--type"
        )
    if kind not in (None, "string", "number", "boolean"):
        raise typer.BadParameter("a type is string, number or boolean", param_hint="--type")
    if value is None or value == "-":
        # `echo` ends what it writes with a line feed that nobody means.
        clear = _streams.standard_input().removesuffix(b"\n")
    else:
        clear = os.fsencode(value)
    key = _app_keys.public_key(public_key, config)
    if as_document:
        sealed = crypto.encrypt_json(clear, key, role=role).decode()
    else:
        kind = kind or "string"
        text = clear if kind == "string" else clear.strip()
        sealed = crypto.encrypt_literal(text, key, kind=kind, role=role)
    output.show({"ciphertext": sealed}, as_json=as_json, text=sealed)


def _only_a_file(
    value: str | None, *, as_document: bool, kind: str | None, role: str | None
) -> None:
    """A file has no value beside it, no type and no role: its format has no place for them."""
    given = [
        name
        for name, is_given in (
            ("VALUE", value is not None),
            ("--document", as_document),
            ("--type", kind is not None),
            ("--role", role is not None),
        )
        if is_given
    ]
    if given:
        raise typer.BadParameter(f"cannot be combined with {given[0]}", param_hint="--file")
