"""Trust classes: production, debug and development never mix."""

import enum


class TrustClass(enum.Enum):
    """What the documents of an enclave are worth, and so what may be released to it.

    A store has one of these as well: ``DEVELOPMENT`` for what is beside an ``enclave.toml``,
    ``PRODUCTION`` for the owner's server. Debug enclaves live in production stores, under an app of
    their own.
    """

    PRODUCTION = "production"
    """The AWS Nitro root, measured code."""
    DEBUG = "debug"
    """The AWS Nitro root, zero PCRs: nothing about the code is proved, so its parent is pinned."""
    DEVELOPMENT = "development"
    """The development root of this machine: nothing at all is proved to anybody else."""
