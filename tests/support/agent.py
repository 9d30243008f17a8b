"""A client of the agent API as an enclave is one: HTTP/1.1 over a Unix socket."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

BOOT = "0123456789abcdef" * 2


class Answer(NamedTuple):
    """What the host said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("host", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(  # noqa: PLR0913 - the parts of a request
    address: str,
    method: str,
    path: str,
    *,
    body: bytes | dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 20.0,
) -> Answer:
    """One call on a connection of its own to ``unix:PATH``."""
    connection = _Connection(address.removeprefix("unix:"), timeout_s)
    try:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, content, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def send_logs(address: str, sequences: range, *, boot: str = BOOT) -> Answer:
    """Sends a batch of small records with these sequence numbers."""
    lines = [json.dumps({"sequence": number, "txid": f"{number:032X}"}) for number in sequences]
    return call(
        address,
        "POST",
        "/v1/logs",
        body="".join(line + "\n" for line in lines).encode(),
        headers={
            "content-type": "application/x-ndjson",
            "x-batch-sequence": str(sequences[-1]),
            "x-cloister-boot": boot,
        },
    )
