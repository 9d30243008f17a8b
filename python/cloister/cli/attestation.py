"""``cloister attestation verify`` and ``show``: documents that were saved to a file.

The exit status says what happened: 0 the document holds, 1 it is refused, 2 the command line is
wrong, 65 it cannot be decoded, 66 there is no such file.
"""

import datetime as dt
import pathlib
from typing import Annotated

import typer

from cloister import attest
from cloister.cli import accepted, output, params


def verify(  # noqa: PLR0913 - one parameter for each option
    document: Annotated[
        str, typer.Argument(metavar="DOC", help="COSE_Sign1, raw or in base64; - for stdin.")
    ],
    *,
    pcr: accepted.Pcr = None,
    toml: accepted.Toml = None,
    eif: accepted.Eif = None,
    at: Annotated[
        dt.datetime | None,
        typer.Option(
            parser=params.moment,
            metavar="TIME",
            help="Verify as of this time: RFC 3339, or @SECONDS. Default: now.",
        ),
    ] = None,
    max_age: accepted.MaxAge = None,
    dangerous_root: accepted.DangerousRoot = None,
    nonce: Annotated[
        bytes | None,
        typer.Option(parser=params.octets, metavar="HEX", help="The nonce that was sent."),
    ] = None,
    user_data: Annotated[
        bytes | None,
        typer.Option(
            parser=params.octets, metavar="HEX", help="User data that the document must carry."
        ),
    ] = None,
    dangerous_accept_debug: accepted.DangerousDebug = False,
    dangerous_any_measurement: accepted.DangerousAny = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify a saved attestation document.

    One of --pcr, --toml and --eif says which measurements are accepted; several of them must all
    hold. Checked: form, certificate chain to the AWS root, signature, age, nonce, measurements,
    user data.

    Example:
      cloister attestation verify doc.cbor --toml enclave.toml
      cloister attestation verify doc.b64 --pcr 0=3f9a… --at 2026-01-31T12:00:00Z --json
    """
    policy = accepted.policy(
        accepted.Options(
            pcr=pcr or [],
            toml=toml,
            eif=eif,
            max_age=max_age,
            dangerous_root=dangerous_root,
            dangerous_accept_debug=dangerous_accept_debug,
            dangerous_any_measurement=dangerous_any_measurement,
        )
    )
    now = at if at is not None else dt.datetime.now(dt.UTC)
    claims = attest.verify(_read(document), policy, now=now, nonce=nonce, user_data=user_data)
    result = {"valid": True, **claims.as_dict()}
    output.show(result, as_json=as_json)


def show(
    document: Annotated[
        str, typer.Argument(metavar="DOC", help="COSE_Sign1, raw or in base64; - for stdin.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode an attestation document without believing anything in it.

    Shows when it was made, its registers (PCRs) and what each of them means, and its certificates
    with their names and times. Anybody can write a document that shows these values: nothing is
    verified.

    Example:
      cloister attestation show doc.cbor
    """
    decoded = attest.decode(_read(document))
    output.note("nothing in this document was verified: anybody can write it")
    from cloister.cli import _document_text  # noqa: PLC0415 - nothing else here reads certificates

    output.show(
        {"verified": False, **_document_text.as_json(decoded)},
        as_json=as_json,
        text=_document_text.as_text(decoded, now=dt.datetime.now(dt.UTC)),
    )


def _read(name: str) -> bytes:
    if name == "-":
        data = typer.get_binary_stream("stdin").read(MAX_INPUT_BYTES + 1)
    else:
        data = accepted.read(pathlib.Path(name), limit=MAX_INPUT_BYTES)
    if len(data) > MAX_INPUT_BYTES:
        raise attest.MalformedDocument(
            f"not an attestation document: longer than {MAX_INPUT_BYTES} bytes"
        )
    return attest.from_text(data)


MAX_INPUT_BYTES = 65_536
"""Bytes read: a document has at most 16 KiB, in base64 with line breaks less than this."""
