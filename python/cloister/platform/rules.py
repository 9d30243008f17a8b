"""What may be registered: rules over values, without a database or a clock."""

from collections.abc import Mapping

from cloister.errors import ConfigError
from cloister.platform.records import EnclaveRecord, checked_register
from cloister.platform.trust_class import TrustClass


def check_class(store: TrustClass, enclave: TrustClass, *, accepts_debug: bool) -> None:
    """Whether an enclave of this class belongs into a store of that class.

    Raises:
        ConfigError: It does not, or ``accepts_debug`` contradicts its class.
    """
    development = TrustClass.DEVELOPMENT
    if (store is development) != (enclave is development):
        raise ConfigError(
            f"an enclave of class `{enclave.value}` cannot be in a store of class `{store.value}`"
        )
    if enclave is TrustClass.DEBUG and not accepts_debug:
        raise ConfigError("an enclave of class `debug` has zero PCRs: it must accept them")
    if enclave is TrustClass.PRODUCTION and accepts_debug:
        raise ConfigError("an enclave of class `production` never accepts zero PCRs")


def checked_registers(record: EnclaveRecord, pcrs: Mapping[int, bytes]) -> dict[str, str]:
    """The registers of a deployment, as they are stored.

    Raises:
        ConfigError: One is missing, has another length or index, or the enclave does not allow it.
    """
    for index in (0, 1, 2):
        if index not in pcrs:
            raise ConfigError(f"a deployment must name PCR{index}")
    checked = {index: checked_register(index, value) for index, value in sorted(pcrs.items())}
    if any(index not in range(32) for index in checked):
        raise ConfigError("a PCR index is not between 0 and 31")
    if not any(checked[0]):
        if not record.accepts_debug:
            raise ConfigError(
                f"PCR0 is zero and the enclave `{record.name}` is not registered as debug"
            )
        # In development the parent is this machine and its simulated NSM, which has no PCR4.
        if record.trust_class is TrustClass.DEBUG and not any(checked.get(4, b"")):
            raise ConfigError("a debug deployment must pin its parent instance by PCR4")
    if record.signers and checked.get(8) not in record.signers:
        raise ConfigError(f"the image is not signed by a signer of the enclave `{record.name}`")
    return {str(index): value.hex() for index, value in checked.items()}
