"""Accepted measurements, from where people keep them: a file, a value, a function that is polled.

The last good answer is kept when a later one fails. There is no answer that means "anything": an
empty one is an error.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from cloister.attest import Measurements, Policy
from cloister.errors import CloisterError, PolicyError

Given = (
    Measurements
    | Mapping[Any, str | bytes]
    | Iterable[Measurements | Mapping[Any, str | bytes]]
    | str
    | os.PathLike[str]
)
"""Measurements as people write them; text and paths name an ``enclave.toml``."""

Provider = Callable[[], Given]
"""Called for the measurements now, at first use and on each refresh."""


class PcrSource:
    """Where a policy comes from, and the last good one.

    Args:
        given: A policy, measurements, the path of an ``enclave.toml``, or a function that returns
            measurements. All but the function are read at once, and never again.
        template: Makes the policy out of measurements: root, age and the like.

    Raises:
        PolicyError: The measurements are empty or wrong.
        MissingInput: The file does not exist.
        ConfigError: The file holds no measurements.
    """

    def __init__(
        self, given: Policy | Given | Provider | None, template: Callable[[Any], Policy]
    ) -> None:
        self._template = template
        self._provider: Provider | None = None
        self._policy: Policy | None = None
        if isinstance(given, Policy):
            self._policy = given
        elif callable(given) and not isinstance(given, Mapping):
            self._provider = given
        else:
            self._policy = self._made(given)

    @property
    def known(self) -> Policy | None:
        """The last good policy; asks nobody."""
        return self._policy

    def policy(self) -> Policy:
        """The last good policy; asks the function when there is none yet.

        Raises:
            PolicyError: The function failed, or returned nothing or something wrong.
        """
        if self._policy is None:
            self._policy = self._polled()
        return self._policy

    def refresh(self) -> None:
        """Asks the function again. A failure leaves the last good policy in place.

        Raises:
            PolicyError: As in :meth:`policy`.
        """
        if self._provider is not None:
            self._policy = self._polled()

    def _polled(self) -> Policy:
        if self._provider is None:
            raise PolicyError("no measurements: a policy must name what it accepts")
        try:
            answer = self._provider()
        except CloisterError:
            raise
        except Exception as problem:
            raise PolicyError(
                f"the PCR provider failed: {type(problem).__name__}: {problem}"
            ) from problem
        return self._made(answer)

    def _made(self, given: object) -> Policy:
        if given is None:
            raise PolicyError("no measurements: a policy must name what it accepts")
        if isinstance(given, (str, os.PathLike)):
            return self._template(Measurements.from_toml(cast("str | os.PathLike[str]", given)))
        return self._template(given)
