"""What the calls of the server work with, made once when it starts."""

import dataclasses

from cloister.platform.clock import Clock
from cloister.platform.database import Database
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.owner import Owner
from cloister.platform.server.versions import Versions
from cloister.platform.tokens import Tokens


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A store and what answers from it."""

    database: Database
    platform: EmbeddedPlatform
    owner: Owner
    tokens: Tokens
    versions: Versions
    clock: Clock
