"""A TLS socket whose timeout is one deadline for all that follows, not a new one for each piece.

The timeout of a socket begins anew with every byte that arrives, so a peer that drips keeps whoever
reads for as long as it likes: through a head, the size of a chunk, a body. Here it is set once for
an answer, and every read and write until it is set again gets what is left of it. Nothing else
differs; a context makes such sockets when it is told to (``SSLContext.sslsocket_class``).
"""

import contextlib
import socket
import ssl
import threading
import time
import weakref
from typing import Any, ClassVar


class DeadlineSocket(ssl.SSLSocket):
    """See the module. A subclass of its own for each user can end all of its sockets at once."""

    _in_use: ClassVar["weakref.WeakSet[DeadlineSocket]"] = weakref.WeakSet()
    _lock: ClassVar[threading.Lock] = threading.Lock()
    _deadline: float | None = None

    def __init_subclass__(cls) -> None:
        """Has a list of sockets of its own."""
        cls._in_use = weakref.WeakSet()

    @classmethod
    def end_all(cls) -> None:
        """Ends what reads or writes on sockets of this class, in whatever thread it waits."""
        with cls._lock:
            in_use = list(cls._in_use)
        for one in in_use:
            with contextlib.suppress(OSError):
                # Not that of TLS, which takes the session away from whoever uses it.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def settimeout(self, value: float | None, /) -> None:
        """Begins a deadline, in seconds from here; ``None`` and zero are as they ever were."""
        with self._lock:
            self._in_use.add(self)
        self._deadline = time.monotonic() + value if value else None
        super().settimeout(value)

    def read(self, *args: Any, **options: Any) -> bytes:  # noqa: ANN401 - of the class above
        """Reads; ``recv`` and ``recv_into`` come here.

        Raises:
            TimeoutError: The deadline passed.
        """
        self._take_what_is_left()
        return super().read(*args, **options)

    def send(self, *args: Any, **options: Any) -> int:  # noqa: ANN401 - of the class above
        """Writes; ``sendall`` comes here with each piece.

        Raises:
            TimeoutError: The deadline passed.
        """
        self._take_what_is_left()
        return super().send(*args, **options)

    def _take_what_is_left(self) -> None:
        if self._deadline is None:
            return
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline passed")
        super().settimeout(left_s)
