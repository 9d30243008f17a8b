"""Growing pauses before something that failed is tried again."""

import dataclasses
import datetime as dt


@dataclasses.dataclass(slots=True)
class _Pause:
    failures: int = 0
    until_s: float = -float("inf")


class Pauses:
    """A pause for each thing that may fail, by its name.

    Args:
        first: Pause after a first failure; doubled with each that follows.
        longest: Longest pause; what has worked for as long begins anew.
    """

    def __init__(self, *, first: dt.timedelta, longest: dt.timedelta) -> None:
        self._first_s = first.total_seconds()
        self._longest_s = longest.total_seconds()
        self._pauses: dict[str, _Pause] = {}

    def failed(self, name: str, *, now_s: float, worked_s: float = 0) -> float:
        """Begins the next pause.

        Args:
            name: What failed.
            now_s: The time, seconds.
            worked_s: How long it had worked before.

        Returns:
            How long the pause is, seconds.
        """
        pause = self._pauses.setdefault(name, _Pause())
        if worked_s >= self._longest_s:
            pause.failures = 0
        doubled_s = self._first_s * float(1 << min(pause.failures, MAX_DOUBLINGS))
        length_s = min(doubled_s, self._longest_s)
        pause.failures += 1
        pause.until_s = now_s + length_s
        return length_s

    def is_over(self, name: str, *, now_s: float) -> bool:
        """Whether it may be tried now."""
        pause = self._pauses.get(name)
        return pause is None or now_s >= pause.until_s

    def end_all(self) -> None:
        """Ends every pause at once; the next ones grow on."""
        for pause in self._pauses.values():
            pause.until_s = -float("inf")

    def forget_others(self, names: set[str]) -> None:
        """Forgets all but these."""
        self._pauses = {name: one for name, one in self._pauses.items() if name in names}


MAX_DOUBLINGS = 16
