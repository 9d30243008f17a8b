"""Environment variables: the only place of the package that reads them.

A setting given on the command line wins over one of these. Nothing here is a secret that another
module may print: the API key is read, never shown.
"""

import dataclasses
import os
import pathlib
import tempfile


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says.

    Args:
        home: Where production state lives: ``CLOISTER_HOME``, else
            ``$XDG_DATA_HOME/cloister``, else ``~/.local/share/cloister``.
        runtime: Where run directories are made: ``XDG_RUNTIME_DIR``, else the temporary directory.
            Socket paths inside have to stay under 108 bytes (unix(7)).
        platform_url: ``CLOISTER_PLATFORM_URL``, when set.
        platform_ca: ``CLOISTER_PLATFORM_CA``, the authority of its certificate, when set.
        api_key: ``CLOISTER_API_KEY``, else ``EV_API_KEY``, when set.
        app_uuid: ``EV_APP_UUID``, when set.
        source_date_epoch: ``SOURCE_DATE_EPOCH``, seconds since the Unix epoch, as it was written
            (https://reproducible-builds.org/specs/source-date-epoch).
        no_color: ``NO_COLOR`` is set to anything but nothing (https://no-color.org).
    """

    home: pathlib.Path
    runtime: pathlib.Path
    platform_url: str | None
    platform_ca: pathlib.Path | None
    api_key: str | None = dataclasses.field(repr=False)
    app_uuid: str | None
    source_date_epoch: str | None
    no_color: bool

    @property
    def dev_ca(self) -> pathlib.Path:
        """Directory of the development roots (NSM and TLS), one per user."""
        return self.home / "dev-ca"

    @property
    def platform(self) -> pathlib.Path:
        """Folder of this machine's platform."""
        return self.home / "platform"

    @property
    def kernels(self) -> pathlib.Path:
        """Directory of the kernels that were built or fetched, one per user."""
        return self.home / "kernels"


def load() -> Settings:
    """Reads the environment once."""
    env = os.environ
    home = env.get("CLOISTER_HOME")
    data = env.get("XDG_DATA_HOME")
    if home:
        root = pathlib.Path(home)
    elif data:
        root = pathlib.Path(data) / "cloister"
    else:
        root = pathlib.Path("~/.local/share/cloister").expanduser()
    runtime = pathlib.Path(env.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not os.access(runtime, os.W_OK):
        runtime = pathlib.Path(tempfile.gettempdir())
    return Settings(
        home=root,
        runtime=runtime,
        platform_url=env.get("CLOISTER_PLATFORM_URL") or None,
        platform_ca=pathlib.Path(env["CLOISTER_PLATFORM_CA"])
        if env.get("CLOISTER_PLATFORM_CA")
        else None,
        api_key=env.get("CLOISTER_API_KEY") or env.get("EV_API_KEY") or None,
        app_uuid=env.get("EV_APP_UUID") or None,
        source_date_epoch=env.get("SOURCE_DATE_EPOCH") or None,
        no_color=bool(env.get("NO_COLOR")),
    )
