"""The data plane without an enclave. :mod:`cloister.dev` is its public face."""

import datetime as dt
from typing import final

from cloister._native.attest import SimulatedNsm

__all__ = ["DevPlane"]

@final
class DevPlane:
    """A data plane that runs in this process, from its construction on.

    Every setting is required: defaults are those of :class:`cloister.dev.DataPlane`.

    Raises:
        ConfigError: ``config`` is not an attested configuration, or an API key could not be
            presented.
        KeyFileError: An app key is none, or is not marked for development.
        OutputError: The log file cannot be opened.
        RunnerError: It cannot listen, or does not accept traffic within ``start_timeout``.
        UsageError: ``nsm`` has a root that is kept in a folder.
        ValueError: An address is none.
    """

    def __new__(
        cls,
        config: bytes,
        *,
        listen: str,
        upstream: str,
        app_key_files: list[bytes],
        api_keys: list[tuple[str, list[str], int | None]],
        env: list[tuple[str, bytes]],
        workers: int,
        proxy_protocol: bool,
        certificate: bytes | None,
        key: bytes | None,
        nsm_root_dir: str | None,
        nsm: SimulatedNsm | None,
        logs: str | None,
        health: str | None,
        internal_api: str | None,
        bundle_life: dt.timedelta,
        start_timeout: dt.timedelta,
    ) -> DevPlane: ...
    @property
    def address(self) -> str: ...
    @property
    def internal_api(self) -> str | None: ...
    @property
    def health_address(self) -> str | None: ...
    @property
    def ca_pem(self) -> str | None: ...
    @property
    def nsm_root_pem(self) -> str: ...
    @property
    def nsm_root_der(self) -> bytes: ...
    @property
    def api_keys(self) -> list[str]: ...
    @property
    def app_public_key(self) -> bytes: ...
    def stats(self) -> dict[str, int]: ...
    def health(self) -> str: ...
    def replace_api_keys(self, api_keys: list[tuple[str, list[str], int | None]]) -> None: ...
    def hold_back_bundles(self, is_held_back: bool) -> None: ...
    def drain(self, grace: dt.timedelta) -> None: ...
    def stop(self) -> None: ...
