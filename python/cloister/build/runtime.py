"""The enclave's own program, which travels with this package."""

from importlib import resources

from cloister.errors import MissingInput


def enclave_binary() -> bytes:
    """``cloister-enclave``: init and data plane, one static program.

    Raises:
        MissingInput: It was not built yet: this is a checkout and not an installed wheel.
    """
    file = resources.files("cloister") / "_bin" / "cloister-enclave"
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise MissingInput(
            f"the enclave's program is not there: `{file}`",
            hint="in a checkout, `make static` builds it; an installed wheel has it",
        ) from None
