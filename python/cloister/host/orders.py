"""Certificate orders: an enclave asks, the authority takes its time, the enclave asks again."""

import collections
import dataclasses
import datetime as dt
import http
import secrets
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from cloister.errors import CloisterError
from cloister.host.ports import CertificateAuthority
from cloister.host.problems import problem_text

MAX_ORDERS = 16  # of one enclave; the oldest is forgotten


@dataclasses.dataclass(frozen=True, slots=True)
class _Order:
    state: dict[str, Any]


class OrderBook:
    """Orders of all enclaves, in memory: one that is lost is placed again.

    Args:
        authority: Who signs.
    """

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority
        self._lock = threading.Lock()
        self._orders: dict[uuid.UUID, collections.OrderedDict[str, _Order]] = {}

    def place(self, enclave: uuid.UUID) -> str:
        """Opens an order and returns its name. Nothing is signed before :meth:`fulfil`."""
        name = secrets.token_hex(16)
        with self._lock:
            orders = self._orders.setdefault(enclave, collections.OrderedDict())
            orders[name] = _Order({"status": "pending"})
            while len(orders) > MAX_ORDERS:
                orders.popitem(last=False)
        return name

    def fulfil(
        self, enclave: uuid.UUID, name: str, csr: bytes, domains: Sequence[str], *, now: dt.datetime
    ) -> None:
        """Asks the authority and keeps what it says. May block for as long as it takes."""
        try:
            chain = self._authority.issue(csr, domains, now=now)
        except CloisterError as problem:
            state = {
                "status": "invalid",
                "problem": problem_text(http.HTTPStatus.FORBIDDEN, problem.message),
            }
        else:
            state = {"status": "valid", "certificate_chain": chain}
        with self._lock:
            orders = self._orders.get(enclave, collections.OrderedDict())
            if name in orders:
                orders[name] = _Order(state)

    def state(self, enclave: uuid.UUID, name: str) -> dict[str, Any] | None:
        """What an enclave is told of its order; ``None``: it has no such order."""
        with self._lock:
            order = self._orders.get(enclave, collections.OrderedDict()).get(name)
        return order.state if order else None
