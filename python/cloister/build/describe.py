"""Everything an EIF says about itself, checked or marked as unchecked."""

import hashlib
import json
import pathlib
from typing import Any

from cloister.build import cpio
from cloister.build.eif import Eif, Kind, measure, metadata, open_eif, signature
from cloister.build.eif.layout import SECTION_BYTES
from cloister.build.eif.measure import Measuring, register
from cloister.build.explain.contents import contents, file_in
from cloister.build.kernel import BzImage
from cloister.errors import MalformedImage


def describe(path: pathlib.Path, *, is_verified: bool = False) -> dict[str, Any]:
    """Describes an image.

    Args:
        path: The EIF.
        is_verified: :func:`verify` it too. Without it, a problem with a ramdisk or the signature is
            part of the description.

    Returns:
        One object with stable keys, ready for JSON.

    Raises:
        MissingInput: There is no such file.
        MalformedImage: It is not an EIF, or ``is_verified`` and something in it is wrong.
    """
    with open_eif(path) as image:
        if is_verified:
            verify(image)
        measured = Measuring.of(image).pcrs(None)
        pcrs, signed = measured.shown(), None
        if image.signature is not None:
            signed = _signature(bytes(image.signature.payload), measured.pcr0)
            if "pcr8" in signed:
                pcrs["PCR8"] = signed.pop("pcr8")
        return {
            "path": str(path),
            "version": 4,
            "architecture": image.architecture,
            "default_memory": image.default_memory,
            "default_cpus": image.default_cpus,
            "crc": f"{image.crc:08x}",
            "has_kernel": image.one(Kind.KERNEL) is not None,
            "kernel": _kernel(image),
            "sections": [
                {
                    "type": section.kind.name.lower(),
                    "offset": section.offset,
                    "size": section.size,
                    "sha384": hashlib.sha384(section.payload).hexdigest(),
                }
                for section in image.sections
            ],
            "pcrs": pcrs,
            "signature": signed,
            "metadata": _metadata(image),
            "runs": _runs(image),
            "verified": is_verified,
        }


def verify(image: Eif) -> None:
    """Refuses an image that cannot start.

    The ramdisks of an image of ours are held to what our init and our launcher take. Those of
    another maker are read as the kernel reads them, which takes more: device nodes, gzip.

    Raises:
        MalformedImage: Its signature is not one of it, or a ramdisk cannot be read; at which
            offset, and why.
    """
    measure(image)
    with contents(image) as ramdisks:
        is_ours = file_in(ramdisks, PROCESS) is not None
    for section in image.ramdisks if is_ours else ():
        cpio.read(section.payload, at=section.offset + SECTION_BYTES)


def _signature(section: bytes, pcr0: bytes) -> dict[str, Any]:
    try:
        verified = signature.verify(section, pcr0)
    except MalformedImage as problem:
        return {"valid": False, "problem": problem.message}
    certificate = verified.certificate
    return {
        "valid": True,
        "algorithm": "ES384",
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "sha256": hashlib.sha256(verified.certificate_der).hexdigest(),
        "pcr8": register(verified.certificate_der).hex(),
    }


def _runs(image: Eif) -> dict[str, Any]:
    """What the image is to run, as its own ramdisks say, and who laid it out so."""
    try:
        with contents(image) as ramdisks:
            told = {name: file_in(ramdisks, name) for name in _TOLD}
    except MalformedImage as problem:
        return {"layout": "unknown", "problem": problem.message}
    if told[PROCESS] is not None:
        return {
            "layout": "cloister",
            "process": _decoded(told[PROCESS]),
            "config": _decoded(told[CONFIG]),
        }
    if told["cmd"] is not None:
        # linuxkit's init reads a word a line (aws-nitro-enclaves-sdk-bootstrap, init/init.c).
        return {
            "layout": "linuxkit",
            "process": {
                "argv": _lines(told["cmd"]),
                "env": [line.partition("=")[::2] for line in _lines(told["env"] or b"")],
            },
        }
    return {"layout": "unknown"}


def _decoded(raw: bytes | None) -> Any:  # noqa: ANN401 - any JSON
    try:
        return None if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        return "not JSON"


def _lines(raw: bytes) -> list[str]:
    return [line for line in raw.decode("utf-8", "replace").splitlines() if line]


def _kernel(image: Eif) -> dict[str, Any] | None:
    """What the kernel's own header says, and the command line as it is measured."""
    kernel, cmdline = image.one(Kind.KERNEL), image.one(Kind.CMDLINE)
    if kernel is None:
        return None
    said: dict[str, Any] = {"version": None, "size": kernel.size}
    if cmdline is not None:
        said["cmdline"] = bytes(cmdline.payload[:MAX_CMDLINE]).decode("utf-8", "replace")
    try:
        head = BzImage.parse(kernel.payload)
    except MalformedImage as problem:
        return said | {"problem": problem.message}
    return said | {"version": head.version, "banner": head.banner}


def _metadata(image: Eif) -> dict[str, Any] | None:
    section = image.one(Kind.METADATA)
    if section is None:
        return None
    try:
        return metadata.decode(section.payload)
    except MalformedImage as problem:
        return {"problem": problem.message}


PROCESS = "cloister/process.json"
CONFIG = "cloister/config.json"
MAX_CMDLINE = 4096
"""Shown of a command line; x86 takes 2048 (``COMMAND_LINE_SIZE``)."""
_TOLD = (PROCESS, CONFIG, "cmd", "env")
