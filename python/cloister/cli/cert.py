"""``cloister cert``: pairs that sign images, and the register they give. All of it offline."""

import datetime as dt
import pathlib
from typing import Annotated, Any

import typer

from cloister.build.certificate import SigningCertificate
from cloister.build.new_pair import make_signing_pair
from cloister.cli import output, params
from cloister.errors import UsageError

_Certificate = Annotated[
    pathlib.Path, typer.Argument(metavar="CERT", help="The certificate, a PEM file.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def new(  # noqa: PLR0913 - the options of the command
    certificate: Annotated[
        pathlib.Path, typer.Option("--cert", metavar="FILE", help="Where the certificate goes.")
    ] = pathlib.Path("cert.pem"),
    *,
    key: Annotated[
        pathlib.Path, typer.Option(metavar="FILE", help="Where the key goes, mode 0600.")
    ] = pathlib.Path("key.pem"),
    name: Annotated[str, typer.Option(help="Common name of the certificate.")] = "cloister",
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long it is valid.")] = 1825,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: _Json = False,
) -> None:
    """Make a signing pair: a P-384 key, and a certificate that it signed itself.

    Images that are signed with it have the PCR8 that is printed. Another pair gives another PCR8,
    so keep the key: whoever has it can sign images that clients take for yours.

    Example:
      cloister cert new --cert signing/cert.pem --key signing/key.pem --name example.org
    """
    if not 0 < len(name) <= MAX_NAME:
        raise UsageError(f"--name: expected 1 to {MAX_NAME} characters, got {len(name)}")
    if certificate.absolute() == key.absolute():
        raise UsageError("--cert and --key name the same file")
    now = dt.datetime.now(dt.UTC)
    make_signing_pair(
        certificate, key, name=name, now=now, lifetime=dt.timedelta(days=days), replace=force
    )
    made = SigningCertificate.read(certificate)
    output.note("in enclave.toml: [signing] certPath and keyPath, relative to that file")
    output.show(
        {"certificate": str(certificate), "key": str(key), **_shown(made, now)},
        as_json=as_json,
        text=f"{certificate}\n{key}\nPCR8 {made.pcr8.hex()}",
    )


def show(certificate: _Certificate, *, as_json: _Json = False) -> None:
    """Show what a signing certificate says, and what is wrong with it.

    Example:
      cloister cert show .cloister/signing/cert.pem
    """
    found = SigningCertificate.read(certificate)
    now = dt.datetime.now(dt.UTC)
    for problem in found.problems(now):
        output.warn(problem)
    shown = _shown(found, now)
    lines = [f"{field:<11} {params.without_controls(str(shown[field]))}" for field in _FIELDS]
    output.show(shown, as_json=as_json, text="\n".join(lines))


def pcr8(certificate: _Certificate, *, as_json: _Json = False) -> None:
    """Print PCR8 of the images that a certificate signs.

    Example:
      cloister cert pcr8 .cloister/signing/cert.pem
    """
    found = SigningCertificate.read(certificate)
    output.show({"pcr8": found.pcr8.hex()}, as_json=as_json, text=found.pcr8.hex())


def _shown(found: SigningCertificate, now: dt.datetime) -> dict[str, Any]:
    return {
        "subject": found.subject,
        "issuer": found.issuer,
        "serial": found.serial,
        "not_before": found.not_before.isoformat(),
        "not_after": found.not_after.isoformat(),
        "public_key": found.key,
        "sha256": found.sha256.hex(),
        "pcr8": found.pcr8.hex(),
        "problems": found.problems(now),
    }


_FIELDS = (
    "subject",
    "issuer",
    "serial",
    "not_before",
    "not_after",
    "public_key",
    "sha256",
    "pcr8",
)
MAX_NAME = 64
"""A common name is no longer (RFC 5280, appendix A.1, ub-common-name)."""
