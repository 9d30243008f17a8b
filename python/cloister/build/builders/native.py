"""The native builder as a choice; it is :mod:`cloister.build.dockerfile` that builds."""

import dataclasses

from cloister.build.builders.protocol import Unusable


@dataclasses.dataclass(frozen=True, slots=True)
class Native:
    """Needs no program: what it cannot do depends on the Dockerfile, not on the machine."""

    name: str = "native"

    def unusable(self) -> Unusable | None:
        """Nothing is lacking anywhere."""
        return None
