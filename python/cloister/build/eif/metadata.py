"""The metadata section: what was built, by what, from what. In no PCR, so it proves nothing.

Compact JSON, keys in the order of aws-nitro-enclaves-image-format, stable fields alone: the same
input gives the same bytes.
"""

import datetime as dt
import json
from typing import Any

from cloister.errors import MalformedImage


def encode(  # noqa: PLR0913 - the fields of the format
    *,
    name: str,
    version: str,
    built_at: int,
    tool_version: str,
    kernel_version: str | None,
    docker: dict[str, Any],
    custom: dict[str, Any],
) -> bytes:
    """The section.

    Args:
        name: Name of the enclave.
        version: Version of the image.
        built_at: ``SOURCE_DATE_EPOCH``, seconds since the Unix epoch.
        tool_version: Version of this program.
        kernel_version: Release of the kernel; ``None``: the image has none.
        docker: Configuration of the image, as ``docker image inspect`` names it.
        custom: Anything else.
    """
    time = dt.datetime.fromtimestamp(built_at, tz=dt.UTC)
    document = {
        "ImageName": name,
        "ImageVersion": version,
        "BuildMetadata": {
            "BuildTime": time.isoformat().replace("+00:00", "Z"),
            "BuildTool": "cloister",
            "BuildToolVersion": tool_version,
            "OperatingSystem": "Linux",
            "KernelVersion": "none" if kernel_version is None else kernel_version,
        },
        "DockerInfo": docker,
        "CustomMetadata": custom,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def decode(section: bytes | memoryview) -> dict[str, Any]:
    """Reads the section of any image.

    Raises:
        MalformedImage: Too long, or not a JSON object.
    """
    if len(section) > MAX_BYTES:
        raise MalformedImage(f"EIF metadata: {len(section)} bytes, the limit is {MAX_BYTES}")
    try:
        document = json.loads(bytes(section))
    except (ValueError, RecursionError):
        raise MalformedImage("EIF metadata is not JSON") from None
    if not isinstance(document, dict):
        raise MalformedImage("EIF metadata is not a JSON object")
    return document


MAX_BYTES = 1 << 20
