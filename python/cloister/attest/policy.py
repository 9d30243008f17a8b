"""What a verifier insists on. A policy that would accept anything cannot be made by accident."""

import dataclasses
import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from cloister._native import attest as _attest
from cloister.attest.measurements import Measurements
from cloister.attest.trust_anchor import TrustAnchor
from cloister.errors import PolicyError

_log = logging.getLogger(__name__)

Accepted = Measurements | Mapping[Any, str | bytes]
"""One set of registers, made or as a mapping."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Policy:
    """The measurements, root and freshness that a document must have.

    Args:
        measurements: Accepted sets of registers; one of them must match. One set may be given
            alone; each may be a mapping (see :class:`Measurements`).
        trust_anchor: The root of the certificate chain.
        max_age: Oldest document accepted, by its own timestamp. The certificate that signed it
            bounds it too, at 3 hours.
        leeway: How far clocks may differ, at most an hour.
        dangerous_accept_debug: Accept an enclave in debug mode. Its PCR0 is zero, so this proves
            nothing about the code it runs.
        dangerous_any_measurement: Accept any registers: proves that some enclave signed, and
            nothing about its code. ``measurements`` must then be left out.

    Raises:
        PolicyError: ``measurements`` is empty or has a wrong value, ``max_age`` is not positive,
            ``leeway`` is out of range, or the root cannot be one.
    """

    measurements: tuple[Measurements, ...] = ()
    trust_anchor: TrustAnchor = dataclasses.field(default_factory=TrustAnchor.aws_nitro)
    max_age: dt.timedelta = dt.timedelta(hours=3)
    leeway: dt.timedelta = dt.timedelta(seconds=60)
    dangerous_accept_debug: bool = False
    dangerous_any_measurement: bool = False
    native: _attest.Policy = dataclasses.field(init=False, repr=False, compare=False)

    def __init__(  # noqa: PLR0913 - each is a rule of its own, by keyword
        self,
        *,
        measurements: Accepted | Iterable[Accepted] = (),
        trust_anchor: TrustAnchor | None = None,
        max_age: dt.timedelta = dt.timedelta(hours=3),
        leeway: dt.timedelta = dt.timedelta(seconds=60),
        dangerous_accept_debug: bool = False,
        dangerous_any_measurement: bool = False,
    ) -> None:
        sets = _sets(measurements)
        anchor = TrustAnchor.aws_nitro() if trust_anchor is None else trust_anchor
        if max_age <= dt.timedelta(0):
            raise PolicyError(f"max_age must be positive, got {max_age}")
        if leeway < dt.timedelta(0):
            raise PolicyError(f"leeway must not be negative, got {leeway}")
        native = _attest.Policy(
            [one.as_pairs() for one in sets],
            root_der=anchor.dangerous_der,
            max_age_ms=max(1, max_age // _MILLISECOND),
            leeway_ms=leeway // _MILLISECOND,
            dangerous_accept_debug=dangerous_accept_debug,
            dangerous_any_measurement=dangerous_any_measurement,
        )
        for name, value in (
            ("measurements", sets),
            ("trust_anchor", anchor),
            ("max_age", max_age),
            ("leeway", leeway),
            ("dangerous_accept_debug", dangerous_accept_debug),
            ("dangerous_any_measurement", dangerous_any_measurement),
            ("native", native),
        ):
            object.__setattr__(self, name, value)
        if dangerous_accept_debug:
            _log.warning("debug enclaves are accepted: nothing about their code is proved")
        if dangerous_any_measurement:
            _log.warning("any measurement is accepted: nothing about the code is proved")

    def with_measurements(self, measurements: Accepted | Iterable[Accepted]) -> "Policy":
        """The same policy for other measurements; ``dangerous_any_measurement`` ends here."""
        return Policy(
            measurements=measurements,
            trust_anchor=self.trust_anchor,
            max_age=self.max_age,
            leeway=self.leeway,
            dangerous_accept_debug=self.dangerous_accept_debug,
        )


def _sets(given: object) -> tuple[Measurements, ...]:
    if isinstance(given, Measurements):
        return (given,)
    if isinstance(given, Mapping):
        return (Measurements(given),)
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        kind = type(given).__name__
        raise PolicyError(f"measurements must be sets of registers, got {kind}")
    return tuple(one if isinstance(one, Measurements) else Measurements(one) for one in given)


_MILLISECOND = dt.timedelta(milliseconds=1)
