"""Reading regular files only: never a FIFO that is waited for, and no symbolic link where none belongs."""

import errno
import os
import stat
from os import PathLike

NOT_REGULAR = "it is no regular file"


def open_regular(path: str | PathLike[str], *, follow: bool = True) -> int:
    """Open a regular file for reading, without waiting.

    Parameters
    ----------
    path
        Of the file.
    follow
        Whether a symbolic link at the end of the path is followed.

    Returns
    -------
    int
        A descriptor, which the caller closes.

    Raises
    ------
    OSError
        When there is no file, or something else than a regular file: opening a FIFO without a writer would wait for
        ever, and a device could deliver for ever.

    Examples
    --------
    >>> import os
    >>> os.close(open_regular(__file__))
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, and a file belongs there", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, NOT_REGULAR, str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    return descriptor


def read_regular(path: str | PathLike[str], max_bytes: int, *, follow: bool = True) -> bytes:
    """Read the beginning of a regular file.

    Parameters
    ----------
    path
        Of the file.
    max_bytes
        How many bytes are read at most, inclusive. Ask for one more than is allowed to see whether a file is longer.
    follow
        Whether a symbolic link at the end of the path is followed.

    Returns
    -------
    bytes
        The content, or its beginning.

    Raises
    ------
    OSError
        As ``open_regular``.

    Examples
    --------
    >>> read_regular(__file__, 3)
    b'\"\"\"'
    """
    with open(open_regular(path, follow=follow), "rb") as file:
        return file.read(max_bytes)
