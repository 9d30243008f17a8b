"""Lines that a daemon says, whoever listens."""

import threading
import time

from cloister.cli._lines import MAX_WAITING, Lines


def test_lines_are_printed_in_their_order_and_all_before_the_end() -> None:
    printed: list[str] = []
    lines = Lines(note=printed.append, detail=lambda text: printed.append(f"({text})"))
    for number in range(50):
        lines.say(str(number))
    lines.detail("more")
    lines.end()
    assert printed == [*map(str, range(50)), "(more)"]


def test_nobody_waits_for_a_reader_and_what_is_left_out_is_counted() -> None:
    printed: list[str] = []
    reads = threading.Event()

    def blocked(text: str) -> None:
        assert reads.wait(30)
        printed.append(text)

    lines = Lines(note=blocked)
    begun = time.monotonic()
    for number in range(2 * MAX_WAITING):
        lines.say(str(number))
    lines.end()
    assert time.monotonic() - begun < 15
    reads.set()
    deadline = time.monotonic() + 20
    while len(printed) < MAX_WAITING:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert any("lines were left out" in text for text in printed)


def test_a_reader_that_is_gone_ends_nothing() -> None:
    printed: list[str] = []

    def broken(text: str) -> None:
        printed.append(text)
        if text == "0":
            raise BrokenPipeError

    lines = Lines(note=broken)
    lines.say("0")
    lines.say("1")
    lines.end()
    assert printed == ["0", "1"]
