"""Everything this package raises.

The tree::

    CloisterError                   hint: what to do about it, when there is something
    ├── ConfigError                 a setting is wrong; fix the file or the argument
    ├── UsageError                  the command line or the call is wrong
    ├── InputError                  input data is wrong
    │   ├── MissingInput            there is no such file
    │   ├── MalformedImage          a Dockerfile, image or EIF cannot be read
    │   ├── MalformedCiphertext     an encrypted string or file cannot be opened
    │   └── KeyFileError            a key or certificate file is not what was expected
    ├── OutputError                 a result cannot be written
    ├── PermissionRefused           the system does not permit it; the hint says what to set
    ├── BuildFailed                 a builder ended with an error; ``status`` is its exit status
    ├── BuilderUnusable             no builder, or not the one that was named, works here
    ├── StoreError                  the platform's store cannot be used
    │   └── DatabaseFailed          its database cannot be reached, or refuses; says which and why
    ├── ReleaseRefused              the platform does not release secrets to this enclave
    ├── PolicyError                 a policy that would accept anything, or nothing
    ├── AttestationError            the enclave did not prove what was asked of it
    │   ├── MalformedDocument       not an attestation document, or a field breaks a limit
    │   ├── UntrustedChain          the certificate chain does not lead to the trust anchor
    │   ├── BadSignature            the document is not signed by its leaf certificate
    │   ├── StaleDocument           too old, or from the future
    │   ├── NonceMismatch           not the nonce that was sent
    │   ├── MeasurementMismatch     no accepted measurement matches
    │   ├── DebugEnclave            a debug enclave: its PCR0 is zero and proves nothing
    │   └── BindingMismatch         not the TLS key, or not the user data, that was expected
    ├── TransportError              a connection failed; trying again may help
    ├── RunnerError                 an enclave could not be started or ended badly
    ├── SystemFailure               a file or stream failed where no other class says more
    └── InternalError               a mistake of this package

A message says what was expected and what was found, in lower case and without a full stop, and
never carries a secret. :attr:`CloisterError.exit_status` is the status the command line ends with.
"""


class CloisterError(Exception):
    """Base of everything this package raises.

    Args:
        message: What was expected and what was found.
        hint: What to do about it; shown apart from the message.
    """

    exit_status = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(CloisterError):
    """A setting is wrong; fix the file or the argument."""

    exit_status = 78


class UsageError(CloisterError):
    """The command line or the call is wrong."""

    exit_status = 2


class InputError(CloisterError):
    """Input data is wrong."""

    exit_status = 65


class MissingInput(InputError):
    """There is no such file."""

    exit_status = 66


class MalformedImage(InputError):
    """A Dockerfile, image or EIF cannot be read."""


class MalformedCiphertext(InputError):
    """An encrypted string or file cannot be opened."""


class KeyFileError(InputError):
    """A key or certificate file is not what was expected."""


class OutputError(CloisterError):
    """A result cannot be written."""

    exit_status = 73


class PermissionRefused(CloisterError):
    """The system does not permit it; the hint says what to set."""

    exit_status = 77


class BuildFailed(CloisterError):
    """A builder ended with an error.

    Args:
        message: What failed, with the builder's last lines.
        status: The builder's own exit status, which becomes the command's.
        hint: What to do about it.
    """

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = status


class BuilderUnusable(CloisterError):
    """No builder, or not the one that was named, works here."""

    exit_status = 69


class StoreError(CloisterError):
    """The platform's store cannot be used."""

    exit_status = 69


class DatabaseFailed(StoreError):
    """A store's database cannot be reached, or refuses; the message says where it is and why."""


class ReleaseRefused(CloisterError):
    """The platform does not release secrets to this enclave."""

    exit_status = 77


class PolicyError(CloisterError):
    """A policy that cannot be made: it would accept anything, or nothing."""

    exit_status = 78


class AttestationError(CloisterError):
    """The enclave did not prove what was asked of it."""

    exit_status = 1


class MalformedDocument(AttestationError):
    """Not an attestation document, or a field breaks a limit."""

    exit_status = 65


class UntrustedChain(AttestationError):
    """The certificate chain does not lead to the trust anchor."""


class BadSignature(AttestationError):
    """The document is not signed by its leaf certificate."""


class StaleDocument(AttestationError):
    """Too old, or from the future."""


class NonceMismatch(AttestationError):
    """Not the nonce that was sent."""


class MeasurementMismatch(AttestationError):
    """No accepted measurement matches."""


class DebugEnclave(AttestationError):
    """A debug enclave: its PCR0 is zero and proves nothing."""


class BindingMismatch(AttestationError):
    """Not the TLS key, or not the user data, that was expected."""


class TransportError(CloisterError):
    """A connection failed; trying again may help."""

    exit_status = 69


class RunnerError(CloisterError):
    """An enclave could not be started or ended badly."""

    exit_status = 69


class SystemFailure(CloisterError):
    """A file or stream failed where no other class says more."""

    exit_status = 74


class InternalError(CloisterError):
    """A mistake of this package."""
