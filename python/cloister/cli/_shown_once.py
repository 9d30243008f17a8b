"""A secret that is shown once, and ends where it cannot be shown.

A full disk or a closed pipe would leave a credential that works and that nobody has.
"""

import contextlib
from collections.abc import Callable, Iterator

from cloister.cli import output
from cloister.errors import CloisterError


@contextlib.contextmanager
def or_revoked(what: str, revoke: Callable[[], object]) -> Iterator[None]:
    """Revokes what was made when the block cannot print it; the failure goes on.

    Args:
        what: What it is, with its id, as the start of a sentence.
        revoke: Ends it.
    """
    try:
        yield
    except OSError:
        said = "is revoked, as it could not be printed"
        try:
            revoke()
        except CloisterError as problem:
            said = f"could not be printed, and is not known to be revoked: {problem.message}"
        with contextlib.suppress(OSError):  # standard error may lead to the same disk
            output.warn(f"{what} {said}")
        raise
