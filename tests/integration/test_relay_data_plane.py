"""curl through the relay and a whole data plane: the application learns who the client is."""

import socket
import subprocess

from tests.support.sockets import peer

from cloister.dev import DataPlane, Relay


def answer_with_the_head(connection: socket.socket) -> None:
    """Sends each request's head back as the body."""
    heard = b""
    while chunk := connection.recv(65_536):
        heard += chunk
        while b"\r\n\r\n" in heard:
            head, _, heard = heard.partition(b"\r\n\r\n")
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(head) + head)


def test_the_address_in_the_proxy_header_reaches_the_application() -> None:
    with (
        peer(answer_with_the_head) as application,
        DataPlane(
            application.address.removeprefix("tcp:"),
            config={"api_key_auth": False},
            proxy_protocol=True,
        ) as plane,
        Relay(
            "tcp:127.0.0.1:0",
            "tcp:" + plane.address.removeprefix("tcp:"),
            proxy_protocol=True,
        ) as relay,
    ):
        url = relay.address.replace("tcp:", "https://") + "/x"
        command = ["curl", "--silent", "--show-error", "--insecure", "--max-time", "20"]
        fetched = subprocess.run(
            [*command, "--interface", "127.0.0.7", url], check=True, capture_output=True, text=True
        )
        lines = fetched.stdout.lower().splitlines()
        assert lines[0] == "get /x http/1.1"
        assert "x-forwarded-for: 127.0.0.7" in lines
        assert relay.stats()["accepted"] == 1

        # Without the header the data plane does not begin to speak.
        bare = "https://" + plane.address.removeprefix("tcp:") + "/x"
        refused = subprocess.run([*command, bare], check=False, capture_output=True)
        assert refused.returncode != 0
