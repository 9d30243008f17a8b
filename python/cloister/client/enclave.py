"""One enclave as a client knows it: where it is, what is accepted of it, and what it proved.

Every transport takes an :class:`Enclave`, and several may share one: they then share the document,
its refresh and the thread that does it.
"""

import datetime as dt
import os
import ssl
import types
from collections.abc import Callable, Mapping
from typing import Any, Self

import certifi
import requests.utils

from cloister import attest
from cloister.client.attestor import Attestor, Freshness, utc_now
from cloister.client.enclave_url import EnclaveUrl
from cloister.client.fetch import Fetcher
from cloister.client.pcr_source import Given, PcrSource, Provider
from cloister.errors import KeyFileError, MissingInput, UsageError


class Enclave:
    """An enclave, its policy and its cached document. Safe to share between threads.

    Args:
        enclave: ``https://HOST[:PORT]``.
        policy: What is accepted: a :class:`cloister.attest.Policy`; or measurements alone, as the
            path of an ``enclave.toml``, a mapping, a list of mappings, or a function that is
            polled for them.
        pcr_provider: A function that is polled for measurements; a ``policy`` beside it gives the
            rest: root, age and the like.
        trust_anchor: Root for measurements given alone.
        dangerous_accept_debug: For measurements given alone: accept a debug enclave.
        ca_file: Certificates that may sign the enclave's TLS certificate; without it those of
            ``certifi``.
        api_key: Sent to this enclave as the ``api-key`` header by the HTTP transports.
        freshness: ``cached``, or ``per-connection`` for a document made for each connection.
        refresh_every: Pause between two background refreshes; zero for none.
        timeout: Seconds for fetching a document, and to connect where a call names no other time.
        proxies: As in ``requests``; they win over those of the environment.
        clock: The verifier's time.

    Raises:
        UsageError: Not such a URL, or arguments that contradict each other.
        PolicyError: The policy would accept anything, or nothing.
        MissingInput, ConfigError: The ``enclave.toml`` cannot be used.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, by keyword
        self,
        enclave: str,
        policy: attest.Policy | Given | Provider | None = None,
        *,
        pcr_provider: Provider | None = None,
        trust_anchor: attest.TrustAnchor | None = None,
        dangerous_accept_debug: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        freshness: str = Freshness.CACHED.value,
        refresh_every: dt.timedelta = dt.timedelta(minutes=5),
        timeout: float = 30.0,
        proxies: Mapping[str, str] | None = None,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self.url = EnclaveUrl.parse(enclave)
        self.api_key = api_key
        self.timeout = timeout
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        self._proxies = {} if proxies is None else proxies
        if isinstance(policy, attest.Policy) and (trust_anchor or dangerous_accept_debug):
            raise UsageError("a policy has its own trust anchor and its own choice about debug")
        if pcr_provider is not None and not isinstance(policy, attest.Policy | None):
            raise UsageError("measurements and a function that is polled for them")

        def template(measurements: Any) -> attest.Policy:  # noqa: ANN401 - checked by Policy
            if pcr_provider is not None and isinstance(policy, attest.Policy):
                return policy.with_measurements(measurements)
            return attest.Policy(
                measurements=measurements,
                trust_anchor=trust_anchor,
                dangerous_accept_debug=dangerous_accept_debug,
            )

        self.attestor = Attestor(
            PcrSource(policy if pcr_provider is None else pcr_provider, template),
            Fetcher(
                enclave=self.url,
                ca_file=self._ca_file,
                timeout_seconds=timeout,
                proxies=self._proxies,
            ),
            freshness=_freshness(freshness),
            refresh_every=refresh_every,
            clock=clock,
        )

    def tls_context(self) -> ssl.SSLContext:
        """A new context with the ordinary checks on: certificate, host name, TLS 1.2 or later.

        Raises:
            MissingInput: The CA file does not exist.
            KeyFileError: It holds no certificate.
        """
        file = certifi.where() if self._ca_file is None else self._ca_file
        try:
            return ssl.create_default_context(cafile=file)
        except FileNotFoundError:
            raise MissingInput(f"`{file}` does not exist") from None
        except (OSError, ssl.SSLError) as problem:
            raise KeyFileError(f"`{file}` is not a file of CA certificates: {problem}") from None

    def proxy(self) -> str | None:
        """The proxy that leads to this enclave: the one given, else that of the environment."""
        url = str(self.url)
        given = requests.utils.select_proxy(url, dict(self._proxies))
        if given is not None:
            return given or None
        return requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))

    def close(self) -> None:
        """Ends the background thread. Connections are their transports'."""
        self.attestor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def _freshness(text: str) -> Freshness:
    try:
        return Freshness(text)
    except ValueError:
        known = " or ".join(f"`{one.value}`" for one in Freshness)
        raise UsageError(f"freshness must be {known}, got {text!r:.40}") from None
