"""Any bytes as a saved image: its archive, its documents and its layers.

The digest of a layer cannot be guessed, so the documents are what is reached here;
``layers`` takes what is behind them. Whatever happens, an image is read or refused with
:class:`~cloister.errors.CloisterError`.
"""

import contextlib
import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["cloister", "tarfile"]):
    from cloister.build.sources import Limits, SavedImage
    from cloister.errors import CloisterError

from tar_heads import repaired

LIMITS = Limits(entries=1000, unpacked=1 << 22, header=1 << 16, metadata=1 << 16)


def main() -> None:
    """Runs until it is told to stop."""
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "image.tar"

        def one(data: bytes) -> None:
            path.write_bytes(repaired(data))
            with contextlib.suppress(CloisterError):
                SavedImage(path, path.parent, limits=LIMITS).load()

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
