"""The ``host.toml`` that ``cloister host init`` writes."""

import json
from typing import Any

from cloister.cli import params
from cloister.errors import UsageError


def listens(given: list[str], carried: list[str]) -> dict[str, str]:
    """Where each enclave listens.

    Raises:
        UsageError: An address is none, or it is not clear for which enclave it is.
    """
    found: dict[str, str] = {}
    for one in given:
        uuid, equals, address = one.rpartition("=")
        if not equals and len(carried) != 1:
            raise UsageError(
                f"the token carries for {len(carried)} enclaves: expected --listen UUID=HOST:PORT"
            )
        uuid = uuid.lower() if equals else carried[0]
        if uuid not in carried or uuid in found:
            raise UsageError(
                f"--listen: {params.printable(uuid)} is not an enclave of the token, or stands"
                " there twice",
                hint=f"the token carries for {', '.join(carried)}",
            )
        found[uuid] = params.listen_address(address)
    return found


def text_of(top: dict[str, Any], platform: dict[str, Any], listens: dict[str, str]) -> str:
    """``host.toml``. TOML's basic strings take every escape that JSON needs for ASCII."""

    def pairs(values: dict[str, Any]) -> list[str]:
        return [
            f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None
        ]

    lines = ["# A host of Cloister; host.toml.example says what each setting means.", ""]
    lines += [*pairs(top), "", "[platform]", *pairs(platform)]
    for uuid, address in listens.items():
        lines += ["", "[[enclave]]", *pairs({"uuid": uuid, "listen": address})]
    return "\n".join([*lines, ""])
