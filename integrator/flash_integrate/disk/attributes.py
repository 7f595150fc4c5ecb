"""Extended attributes: labels, access lists, Finder's tags. A file that is replaced as a whole
would lose them."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_NOT_OURS = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODATA, errno.ENOTSUP}
"""What the system answers for an attribute that it sets itself, or that this file system does not
have."""
_COPYFILE_ACL, _COPYFILE_XATTR = 1 << 0, 1 << 2  # of macOS, copyfile.h


def copy_attributes(source: Path, target: Path) -> None:
    """Gives `target` the extended attributes of `source`, as far as the system lets them be set.

    Raises:
        OSError: one could be set and was not, as on a full disk.
    """
    if sys.platform == "darwin":  # Python has no function for them there
        copyfile = ctypes.CDLL(None, use_errno=True).copyfile
        copyfile.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint32]
        if (
            copyfile(
                os.fsencode(source), os.fsencode(target), None, _COPYFILE_ACL | _COPYFILE_XATTR
            )
            < 0
        ):
            _raise_unless_not_ours(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
    elif sys.platform == "linux":
        try:
            names = os.listxattr(source)
        except OSError as error:
            return _raise_unless_not_ours(error)
        for name in names:
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                _raise_unless_not_ours(error)


def _raise_unless_not_ours(error: OSError) -> None:
    if error.errno not in _NOT_OURS:
        raise error
