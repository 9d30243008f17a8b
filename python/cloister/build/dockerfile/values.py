"""Small values of instructions: names, durations, the flags of HEALTHCHECK."""

import re

from cloister.build.dockerfile.parse import Instruction
from cloister.build.image_config import Healthcheck


def check_name(name: str, item: Instruction) -> None:
    """The name of an ARG.

    Raises:
        MalformedImage: It is none.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise item.place.error(f"ARG {name[:40]!r} is not a name")


def healthcheck(item: Instruction, test: list[str]) -> Healthcheck:
    """HEALTHCHECK with its flags.

    Raises:
        MalformedImage: A flag is no duration, or no number.
    """
    default = Healthcheck(test=test)
    retries = item.flags.get("retries", str(default.retries))
    if not re.fullmatch(r"[0-9]{1,6}", retries) or not int(retries):
        raise item.place.error(
            f"HEALTHCHECK --retries={retries[:40]}: expected a number, 1 or more"
        )
    return Healthcheck(
        test=test,
        interval_ms=_duration(item, "interval", default.interval_ms),
        timeout_ms=_duration(item, "timeout", default.timeout_ms),
        start_period_ms=_duration(item, "start-period", default.start_period_ms),
        start_interval_ms=_duration(item, "start-interval", default.start_interval_ms),
        retries=int(retries),
    )


def _duration(item: Instruction, flag: str, default: int) -> int:
    """A duration as Go writes them, in milliseconds: ``1m30s``, ``500ms``."""
    text = item.flags.get(flag)
    if text is None or text == "0":
        return default
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(h|ms|us|µs|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise item.place.error(
            f"{item.name} --{flag}={text[:40]}: expected a duration, as in 30s or 1m30s"
        )
    return max(1, int(sum(float(number) * _UNITS[unit] for number, unit in parts)))


_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}
