"""``cloister decrypt``: open ciphertexts with the private keys of an app."""

import os
import pathlib
from typing import Annotated

import typer

from cloister import crypto
from cloister.cli import _app_keys, _streams, output
from cloister.errors import InputError


def decrypt(  # noqa: PLR0913 - an option is an argument
    value: Annotated[
        str | None, typer.Argument(help="The ciphertext; `-` or nothing reads standard input.")
    ] = None,
    *,
    as_document: Annotated[
        bool, typer.Option("--document", help="The input is JSON: decrypt the values in it.")
    ] = False,
    file: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE|-", help="Decrypt an encrypted file; `-` is a pipe."),
    ] = None,
    output_file: Annotated[
        pathlib.Path | None,
        typer.Option("--output", "-o", help="Where the clear text goes, mode 0600; else a pipe."),
    ] = None,
    max_file: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help=f"Longest file, which is held in memory; else {crypto.MAX_FILE_BYTES >> 20} MiB.",
        ),
    ] = None,
    private_key: Annotated[
        list[pathlib.Path] | None,
        typer.Option(
            metavar="FILE",
            help="A private key, oldest first, repeatable; else those of the local store.",
        ),
    ] = None,
    config: Annotated[
        pathlib.Path, typer.Option(help="enclave.toml, whose local store has the keys.")
    ] = pathlib.Path("enclave.toml"),
    dangerous_accept_debug: Annotated[
        bool,
        typer.Option(
            "--dangerous-accept-debug", help="Open what was made in an SDK's debug mode, too."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --file, needs --output.")
    ] = False,
) -> None:
    """Decrypt a value, the values of a JSON document, or a file.

    The clear text of a value is printed as it is; a file appears whole, after its tag was checked,
    or not at all. Nothing leaves this machine.

    Example:
      cloister encrypt < secret.txt | cloister decrypt
      cloister decrypt --document < sealed.json
      cloister decrypt --file scan.pdf.enc --output scan.pdf
    """
    if file is not None and (value is not None or as_document):
        given = "VALUE" if value is not None else "--document"
        raise typer.BadParameter(f"cannot be combined with {given}", param_hint="--file")
    if file is None and max_file is not None:
        raise typer.BadParameter("is for `--file`", param_hint="--max-file")
    if file is not None or output_file is not None:
        _streams.json_needs_a_file(as_json=as_json, path=output_file)
    if dangerous_accept_debug:
        output.warn("what was made in debug mode is opened, though it proves nothing")
    keys = _app_keys.keyring(
        private_key or [], config, dangerous_accept_debug=dangerous_accept_debug
    )
    if file is not None:
        with (
            _streams.reading(file) as source,
            _streams.writing(output_file, mode=_streams.SECRET) as target,
        ):
            crypto.decrypt_file(source, target, keys, max_bytes=max_file or crypto.MAX_FILE_BYTES)
        if as_json:
            output.show({"output": str(output_file)}, as_json=True)
        return
    given_text = _streams.standard_input() if value is None or value == "-" else os.fsencode(value)
    if as_document:
        document = given_text.removesuffix(b"\n")  # `show` ends the line
        kind, clear = "document", crypto.decrypt_json(document, keys)
    else:
        kind, clear = _one(given_text, keys)
    _show(kind, clear, output_file, as_json=as_json)


def _one(given: bytes, keys: crypto.Keyring) -> tuple[str, bytes]:
    """A single ciphertext, white space around it aside."""
    (found,) = keys.decrypt_values([given.strip().decode("latin-1")])
    if found is None:
        raise InputError(
            "the input is not one ciphertext",
            hint="`--document` is for JSON, `--file` for encrypted files",
        )
    return found


def _show(kind: str, clear: bytes, path: pathlib.Path | None, *, as_json: bool) -> None:
    if path is not None:
        with _streams.writing(path, mode=_streams.SECRET) as target:
            target.write(clear)
        if as_json:
            output.show({"output": str(path)}, as_json=True)
        return
    try:
        text = clear.decode()
    except UnicodeDecodeError:
        raise InputError(
            "the clear text is not UTF-8", hint="`--output FILE` writes it as it is"
        ) from None
    output.show({"type": kind, "clear": text}, as_json=as_json, text=text)
