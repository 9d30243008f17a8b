"""``cloister attest``: fetch the document of a running enclave and verify it."""

import datetime as dt
import pathlib
import secrets
from typing import Annotated

import typer

from cloister import client
from cloister import config as configuration
from cloister.cli import _owner, accepted, output, params
from cloister.errors import UsageError
from cloister.replacing import replace


def attest(  # noqa: PLR0913 - one parameter for each option
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="https://HOST[:PORT]. Default: the first of `[tls] domains` of --config.",
            show_default=False,
        ),
    ] = None,
    *,
    enclave: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Expect an active deployment of this enclave, by name or uuid, in the registry.",
        ),
    ] = None,
    config: Annotated[
        pathlib.Path, typer.Option(metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    pcr: accepted.Pcr = None,
    toml: accepted.Toml = None,
    eif: accepted.Eif = None,
    nonce: Annotated[
        bytes | None,
        typer.Option(
            parser=params.octets, metavar="HEX", help="Ask for a document with this nonce."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask for a document with a random nonce.")
    ] = False,
    ca_file: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="CA that signed the enclave's TLS certificate."),
    ] = None,
    timeout: Annotated[
        dt.timedelta | None,
        typer.Option(parser=params.duration, metavar="TIME", help="Longest wait. Default: 15s."),
    ] = None,
    max_age: accepted.MaxAge = None,
    destination: Annotated[
        pathlib.Path | None,
        typer.Option("--output", metavar="FILE", help="Save the verified document here."),
    ] = None,
    dangerous_root: accepted.DangerousRoot = None,
    dangerous_accept_debug: accepted.DangerousDebug = False,
    dangerous_any_measurement: accepted.DangerousAny = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    r"""Attest a running enclave.

    Connects with the ordinary certificate and host name checks, fetches the attestation document
    and verifies it, down to the TLS key of that very connection. One of --pcr, --toml, --eif and
    --enclave says which measurements are accepted; several of them must all hold. --enclave asks
    the platform of CLOISTER_PLATFORM_URL, or the local store beside --config, and accepts each
    image that is deployed now.

    Example:
      cloister attest https://hello.example.com --toml enclave.toml
      cloister attest --enclave hello https://hello.example.com
      cloister attest https://127.0.0.1:8443 --toml enclave.toml --fresh \
          --ca-file ca.pem --dangerous-root nsm-root.pem
    """
    if fresh and nonce is not None:
        raise UsageError("--fresh draws a nonce: it excludes --nonce")
    if nonce is not None and not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise UsageError(
            f"a nonce has {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes, got {len(nonce)}"
        )
    deployed = [] if enclave is None else _owner.deployed(enclave, config)
    policy = accepted.policy(
        accepted.Options(
            pcr=pcr or [],
            toml=toml,
            eif=eif,
            deployed=deployed,
            max_age=max_age,
            dangerous_root=dangerous_root,
            dangerous_accept_debug=dangerous_accept_debug,
            dangerous_any_measurement=dangerous_any_measurement,
        )
    )
    url = _address(config) if url is None else url
    found = client.attest(
        url,
        policy,
        ca_file=None if ca_file is None else str(ca_file),
        nonce=secrets.token_bytes(32) if fresh else nonce,
        timeout_seconds=15.0 if timeout is None else timeout.total_seconds(),
    )
    if destination is not None:
        replace(destination, found.document)
    result = {"valid": True, "enclave": url, **found.claims.as_dict(), "tls_spki": found.spki.hex()}
    output.show(result, as_json=as_json)


def _address(config: pathlib.Path) -> str:
    """Where the enclave of an enclave.toml is, as its own domains say.

    Raises:
        UsageError: It has none.
    """
    domains = configuration.load(config).tls.domains if config.is_file() else ()
    if not domains:
        raise UsageError(
            "no URL: where is the enclave?",
            hint=f"give https://HOST, or name a domain in `[tls] domains` of `{config}`",
        )
    return f"https://{domains[0]}"


MIN_NONCE_BYTES = 16
MAX_NONCE_BYTES = 512
"""What `/.well-known/attestation` takes."""
