"""``SOURCE_DATE_EPOCH`` for a Dockerfile that asks for it, whoever builds.

With ``ARG SOURCE_DATE_EPOCH`` it is in the environment of each RUN (reproducible-builds.org,
SOURCE_DATE_EPOCH specification). BuildKit passes it to every Dockerfile and takes the time of the
image from it; the others complain about an argument that nothing asks for.
"""

import re

from cloister.build.builders.protocol import BuildRequest
from cloister.build.builders.stage import Stage

NAME = "SOURCE_DATE_EPOCH"


def epoch_argument(request: BuildRequest, stage: Stage, *, always: bool = False) -> list[str]:
    """The build argument; none when the user gives it, or the Dockerfile has no use for it.

    Args:
        request: What is to be built.
        stage: Where the Dockerfile is.
        always: Also when the Dockerfile does not ask for it.
    """
    text = stage.dockerfile.read_text(encoding="utf-8", errors="replace")
    is_wanted = always or _ASKED_FOR.search(text) is not None
    if NAME in request.build_args or not is_wanted:
        return []
    return [f"--build-arg={NAME}={request.epoch}"]


_ASKED_FOR = re.compile(rf"^[ \t]*ARG[ \t](?:.*[ \t])?{NAME}\b", re.IGNORECASE | re.MULTILINE)
