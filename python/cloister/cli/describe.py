"""``cloister describe``: what is in an EIF."""

import json
import pathlib
from typing import Annotated, Any

import typer

from cloister.build.describe import describe as describe_image
from cloister.cli import output


def describe(
    eif: Annotated[pathlib.Path, typer.Argument(metavar="EIF", help="The image.")],
    *,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Refuse it when its signature or a ramdisk is wrong; exit status 65."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is in an EIF: sections, sizes, checksum, PCRs, signature, build metadata.

    The PCRs are computed from the bytes of the image; its metadata is what its builder said, in no
    PCR and believed by nobody.

    Example:
      cloister describe enclave.eif --verify
      cloister describe enclave.eif --json
    """
    found = describe_image(eif, is_verified=verify)
    output.show(found, as_json=as_json, text=_told(found))


def _told(found: dict[str, Any]) -> str:
    kernel = "" if found["has_kernel"] else ", no kernel: for the sandbox alone"
    lines = [
        f"{_safe(found['path'])}: EIF version {found['version']}, {found['architecture']}{kernel}",
        f"  default memory {found['default_memory']} bytes, default CPUs {found['default_cpus']}",
        f"  CRC-32 {found['crc']}, right",
        "sections:",
    ]
    lines += [
        f"  {index}  {section['type']:<9}  at {section['offset']:>10}  {section['size']:>10} bytes"
        f"  sha384 {section['sha384'][:16]}…"
        for index, section in enumerate(found["sections"])
    ]
    lines += ["PCRs:"] + [f"  {name} {value}" for name, value in found["pcrs"].items()]
    signature = found["signature"]
    if signature is None:
        lines.append("signature: none")
    elif signature["valid"]:
        lines += [
            "signature: right, ES384",
            f"  subject {_safe(signature['subject'])}",
            f"  valid from {signature['not_before']} to {signature['not_after']}",
            f"  certificate sha256 {signature['sha256']}",
        ]
    else:
        lines.append(f"signature: WRONG: {_safe(signature['problem'])}")
    lines.append("metadata, as its builder said:")
    text = json.dumps(found["metadata"], indent=2, ensure_ascii=False)
    lines += [f"  {_safe(line)}" for line in text.splitlines()]
    if found["verified"]:
        lines.append("verified: structure, checksum, ramdisks and signature are right")
    return "\n".join(lines)


def _safe(text: str) -> str:
    """Text of whoever made the image, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "�" for char in text)
