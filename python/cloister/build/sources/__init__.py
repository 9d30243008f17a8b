"""Images that are there already: saved by Docker, podman or buildah, or a plain folder of files.

:class:`SavedImage` reads both layouts of ``docker save``, OCI layouts and OCI archives, with gzip,
zstd or plain layers; :func:`read_folder` reads a folder. Every digest is checked, every archive is
taken for somebody else's: nothing in it is followed, unpacked to a name, or believed in its sizes.
"""

from cloister.build.sources.limits import Limits
from cloister.build.sources.load import SavedImage
from cloister.build.sources.rootfs_folder import read_folder
from cloister.build.sources.saved import Wanted

__all__ = ["Limits", "SavedImage", "Wanted", "read_folder"]
