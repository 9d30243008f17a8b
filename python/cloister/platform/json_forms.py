"""How values are written where JSON has no type for them (:mod:`cloister.platform.owner`)."""

import base64
import binascii
import datetime as dt
from typing import Any

from cloister.errors import ConfigError
from cloister.platform.clock import from_ms
from cloister.platform.variables import VariableRecord


def variable(record: VariableRecord) -> dict[str, Any]:
    """A variable as its owner sees it."""
    return {
        "name": record.name,
        "secret": record.secret,
        "updated": text(from_ms(record.updated_ms)),
        "value": None if record.value is None else base64.b64encode(record.value).decode(),
    }


def decoded(encoded: str, field: str) -> bytes:
    """Bytes of base64.

    Raises:
        ConfigError: It is none; the message names the field.
    """
    try:
        return base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError(f"`{field}` is not base64") from None


def unhex(digits: str, field: str) -> bytes:
    """Bytes of hexadecimal digits.

    Raises:
        ConfigError: They are none; the message names the field.
    """
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ConfigError(f"`{field}` is not hexadecimal") from None


def text(moment: dt.datetime) -> str:
    """A time of RFC 3339, in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
