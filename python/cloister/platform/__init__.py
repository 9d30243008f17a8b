"""The owner's platform: registry, key service, secrets, API keys, for attested enclaves alone.

What a host may ask is :class:`~cloister.platform.interface.Platform`. What the owner does is in
:mod:`~cloister.platform.registry` and :mod:`~cloister.platform.api_keys`;
:mod:`~cloister.platform.local` is the development store beside an ``enclave.toml``.
"""
