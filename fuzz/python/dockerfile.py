"""Any text as a Dockerfile: parsed, planned, and run where nothing is to be copied.

Whatever happens, it is read or refused with :class:`~cloister.errors.CloisterError`.
"""

import contextlib
import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["cloister"]):
    from cloister.build.dockerfile import Options, needs_container, run
    from cloister.errors import CloisterError


def main() -> None:
    """Runs until it is told to stop."""
    with tempfile.TemporaryDirectory() as name:
        context = pathlib.Path(name) / "context"
        (context / "folder").mkdir(parents=True)
        (context / "app").write_bytes(b"program")
        (context / "folder" / "file").write_bytes(b"file")
        file = context.parent / "Dockerfile"

        def one(data: bytes) -> None:
            text = data.decode("utf-8", "replace")
            with contextlib.suppress(CloisterError):
                needs_container(text, "Dockerfile")
            file.write_text(text, encoding="utf-8")
            with contextlib.suppress(CloisterError):
                run(file, context, Options(build_args={"GIVEN": "value"}))

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
