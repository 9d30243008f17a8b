"""``requests`` over attested connections."""

import datetime as dt
import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from cloister import attest
from cloister.client.attestor import Attestor, Freshness, utc_now
from cloister.client.enclave import Enclave
from cloister.client.enclave_url import EnclaveUrl, not_an_enclave
from cloister.client.pcr_source import Given, Provider
from cloister.client.tls_check import install
from cloister.errors import PolicyError, UsageError

API_KEY_HEADER = "api-key"


class Session(requests.Session):
    """A :class:`requests.Session` that talks to attested enclaves, and to nothing else.

    Each new TLS connection is checked right after its handshake and before a byte of the request
    is sent: certificate and host name as always, then the enclave's attestation document. Requests
    then go over kept-alive connections as usual. A path alone (``/v1/x``) is one of the first
    enclave. Redirects are followed to enclaves that were added, and refused to any other host.

    Args:
        enclave: ``https://HOST[:PORT]``.
        policy: What is accepted: a :class:`cloister.attest.Policy`; or measurements alone, as the
            path of an ``enclave.toml``, a mapping, a list of mappings, or a function that is
            polled for them.
        pcr_provider: A function that is polled for measurements; a ``policy`` beside it gives the
            rest: root, age and the like.
        trust_anchor: Root for measurements given alone.
        dangerous_accept_debug: For measurements given alone: accept a debug enclave.
        ca_file: Certificates that may sign the enclave's TLS certificate.
        api_key: Sent to this enclave as the ``api-key`` header.
        freshness: ``cached``, or ``per-connection`` for a document made for each connection.
        refresh_every: Pause between two background refreshes; zero for none.
        timeout: Seconds for a request that names none: to connect, and between two reads.
        proxies: As in ``requests``; documents are fetched through them too, as they are through
            those of the environment.
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
        super().__init__()
        # The plain adapters could reach any host unattested.
        self.adapters.clear()
        self.verify = True if ca_file is None else os.fspath(ca_file)
        self.proxies.update(proxies or {})
        self._timeout = timeout
        self._clock = clock
        self._refresh_every = refresh_every
        self._enclaves: dict[EnclaveUrl, AttestedAdapter] = {}
        self._first = EnclaveUrl.parse(enclave)
        self.add(
            enclave,
            policy,
            pcr_provider=pcr_provider,
            trust_anchor=trust_anchor,
            dangerous_accept_debug=dangerous_accept_debug,
            api_key=api_key,
            freshness=freshness,
        )

    def add(  # noqa: PLR0913 - each is a setting of its own, by keyword
        self,
        enclave: str,
        policy: attest.Policy | Given | Provider | None = None,
        *,
        pcr_provider: Provider | None = None,
        trust_anchor: attest.TrustAnchor | None = None,
        dangerous_accept_debug: bool = False,
        api_key: str | None = None,
        freshness: str = Freshness.CACHED.value,
    ) -> Self:
        """Lets the session talk to one more enclave; see the class for the arguments."""
        made = Enclave(
            enclave,
            policy,
            pcr_provider=pcr_provider,
            trust_anchor=trust_anchor,
            dangerous_accept_debug=dangerous_accept_debug,
            ca_file=self.verify if isinstance(self.verify, str) else None,
            api_key=api_key,
            freshness=freshness,
            refresh_every=self._refresh_every,
            timeout=self._timeout,
            proxies=self.proxies,
            clock=self._clock,
        )
        if made.url in self._enclaves:
            raise UsageError(f"{made.url} is there already")
        self._enclaves[made.url] = AttestedAdapter(
            made.attestor, api_key=api_key, timeout=self._timeout
        )
        return self

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as requests has it
        """As :meth:`requests.Session.request`; a path alone is one of the first enclave."""
        if isinstance(url, str) and url.startswith("/") and not url.startswith("//"):
            url = f"{self._first}{url}"
        return super().request(method, url, *args, **kwargs)

    def merge_environment_settings(
        self,
        url: Any,  # noqa: ANN401 - as requests has it
        proxies: Any,  # noqa: ANN401 - as requests has it
        stream: Any,  # noqa: ANN401 - as requests has it
        verify: Any,  # noqa: ANN401 - as requests has it
        cert: Any,  # noqa: ANN401 - as requests has it
    ) -> Any:  # noqa: ANN401 - as requests has it
        """As in ``requests``, but a CA file given here wins over one of the environment."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    def get_adapter(self, url: str | bytes) -> BaseAdapter:
        """The adapter of the enclave that a URL names; a redirect is looked up here too.

        Raises:
            PolicyError: There is no such enclave.
        """
        text = url.decode() if isinstance(url, bytes) else url
        try:
            return self._enclaves[EnclaveUrl.origin_of(text)]
        except (KeyError, UsageError):
            raise not_an_enclave(
                text, "session", hint="`Session.add` adds one, with its own policy"
            ) from None

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """As in ``requests``: credentials do not follow a redirect to another origin."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]
        before, after = response.request.url or "", prepared_request.url or ""
        if EnclaveUrl.origin_of(before) != EnclaveUrl.origin_of(after):
            prepared_request.headers.pop(API_KEY_HEADER, None)

    def attestor(self, enclave: str | None = None) -> Attestor:
        """The checker of one enclave, for a transport of your own."""
        url = self._first if enclave is None else EnclaveUrl.parse(enclave)
        try:
            return self._enclaves[url].attestor
        except KeyError:
            raise PolicyError(f"{url} is not an enclave of this session") from None

    def close(self) -> None:
        """Closes connections and ends the background threads."""
        super().close()
        for adapter in self._enclaves.values():
            adapter.close()


class AttestedAdapter(HTTPAdapter):
    """The connections to one enclave.

    Args:
        attestor: Checks each of them.
        api_key: Added to requests that have none.
        timeout: Seconds for a request that names none.
    """

    def __init__(self, attestor: Attestor, *, api_key: str | None, timeout: float) -> None:
        self.attestor = attestor
        self._api_key = api_key
        self._timeout = timeout
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as requests has it
        """Makes the connections of the pool attested ones.

        They hold the attestor and not this adapter: a pool's idle connections are held by its
        finalizer, so one that led back to the pool would keep a forgotten session alive.
        """
        super().init_poolmanager(*args, **kwargs)
        install(self.poolmanager, self.attestor.check)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as requests has it
        """Makes the connections through a proxy attested ones."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        install(manager, self.attestor.check)
        return manager

    def add_headers(self, request: requests.PreparedRequest, **_kwargs: Any) -> None:  # noqa: ANN401 - as requests has it
        """Adds the API key; called by ``send``."""
        if self._api_key is not None:
            request.headers.setdefault(API_KEY_HEADER, self._api_key)

    def send(  # noqa: PLR0913, PLR0917 - as requests has it
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - as requests has it
        timeout: Any = None,  # noqa: ANN401 - as requests has it
        verify: bool | str = True,  # noqa: FBT001, FBT002 - as requests has it
        cert: Any = None,  # noqa: ANN401 - as requests has it
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Sends one request, with a time limit and with the TLS checks on.

        Raises:
            UsageError: ``verify`` is off: attestation comes after the ordinary checks, not
                instead of them.
        """
        if verify is False:
            raise UsageError(
                "`verify=False` is refused: attestation comes after certificate and host name",
                hint="give the CA of the enclave by `ca_file`",
            )
        return super().send(
            request,
            stream=stream,
            timeout=self._timeout if timeout is None else timeout,
            verify=verify,
            cert=cert,
            proxies=proxies,
        )

    def close(self) -> None:
        """Closes the connections and ends the background thread."""
        # urllib3 closes what is in a pool when nobody holds the pool any more; a traceback may.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - urllib3's container has no other iterator
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()
        self.attestor.close()
