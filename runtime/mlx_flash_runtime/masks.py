"""Masks that the runtime knows by what they say: a sliding window, a prefix, packed documents.

Each is an array like any other, for any attention function; passed to a patched or planned call,
its elements are never computed where a route knows what to do with the structure.
"""

from .problem.masks import packed_mask, prefix_mask, window_mask

__all__ = ["packed_mask", "prefix_mask", "window_mask"]
