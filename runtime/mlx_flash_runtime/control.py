"""Switching the patch on and off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

from .environment.announcement import announce, has_run, say_when_it_runs
from .environment.log import logger
from .environment.workers import hand_on, handed_on
from .patching import patch
from .planning.machine import current_device
from .planning.planner import planner_for
from .report.at_exit import speak_at_exit, write_at_exit
from .settings import Settings, checked_block_size, resolve, typed_block_size
from .stock import asked
from .stock.release import mlx_release, mlx_version
from .stock.table import known_range, known_releases


def enable_flash_attention(
    enabled: bool = True, block_size: int | str | None = None, *, inherit: bool = False
) -> None:
    """Routes MLX's attention calls through the planner, process-wide, whenever the model was
    loaded.

    `block_size` is the number of queries and of keys that a route with blocks takes at once, None
    to leave it to the planner; a text is what a user typed on a command line. With `enabled=False`
    MLX's own attention is put back. Calling it again changes the settings. In the environment,
    `MLX_FLASH_DISABLE=1` wins over `enabled`; `MLX_FLASH_BLOCK_SIZE` counts where `block_size` is
    None; `MLX_FLASH_ROUTE` names a route to prefer; `MLX_FLASH_REPORT` asks for a report at exit.
    On a release of MLX that this package was not checked with, it says so once and asks MLX what
    it fuses; on one that is older, or that can't be asked, it leaves MLX's own attention in place.
    With `inherit=True`, for what runs in a worker process, it does what the program has chosen
    last, in this process or in the one that started it; the arguments count where neither has.
    Where another copy of this package (a vendored one) has patched MLX, that patch stays the only
    one, with its settings.

    Replaced are `mx.fast.scaled_dot_product_attention` and every name that a loaded module has
    bound to it; a function kept elsewhere (a default argument, an attribute of a class) stays
    MLX's own. A function that another package has put in its place stays there, and calls ours
    where it called MLX's.

    Raises ValueError unless `block_size` is None or a positive multiple of 8; a text that is none,
    as a bad environment variable, ends the program with one line on stderr and exit status 2.
    """
    if isinstance(block_size, str):
        block_size = typed_block_size(block_size)
    chosen = handed_on() if inherit else None
    settings = resolve(*(chosen or (enabled, block_size)))
    hand_on(settings.enabled, settings.block_size)
    write_at_exit()
    before = patch.active()
    _apply(settings)
    after = patch.active()
    if after is None:
        say_when_it_runs(None)
    if after is not None and after is not before:
        current_device()  # so that its kernel, which may have to be built, is there early
        if not has_run():
            after.forget()  # so that the first call is planned, and says so
        # A program's own call, which reads its flags, may follow one that inherits.
        say_when_it_runs(lambda: _on_with(settings), waits=inherit)
        speak_at_exit()
        _warn_of(patch.in_front())
    elif settings.enabled and (other := patch.other_copy()):
        announce(f"flash attention: {other}, another copy of this package, has it on already")


def _on_with(settings: Settings) -> str:
    size, backend = settings.block_size or "auto", current_device().backend
    return f"flash attention: on (mlx {mlx_version()}, {backend}; block size {size})"


def _warn_of(in_front: object) -> None:
    """Warns of another package's function in the place of MLX's, if there is one that may not call
    ours."""
    if in_front is not None:
        owner = in_front if hasattr(in_front, "__qualname__") else type(in_front)
        logger.warning(
            "flash attention: %s.%s has taken the place of mx.fast.scaled_dot_product_attention and"
            " keeps it: only calls that it passes on are planned",
            owner.__module__,
            owner.__qualname__,
        )


def disable_flash_attention() -> None:
    """Puts MLX's own attention back everywhere; does nothing where it is in place."""
    say_when_it_runs(None)
    hand_on(False, None)
    patch.uninstall()


@contextmanager
def flash_attention_enabled(
    enabled: bool = True, *, block_size: int | None = None
) -> Iterator[None]:
    """`enable_flash_attention` for the length of a `with` block; what was in place before comes
    back, also after an error.

    The patch is process-wide: threads that run meanwhile are patched too, and of blocks of two
    threads that overlap the last to end decides what stays.
    """
    settings = resolve(enabled, block_size)
    before = patch.active()
    _apply(settings)
    try:
        yield
    finally:
        if before is None:
            patch.uninstall()
        else:
            patch.install(before)


def _apply(settings: Settings) -> None:
    if settings.enabled and mlx_is_known() and not patch.other_copy():
        patch.install(planner_for(settings))
    else:
        patch.uninstall()


def settings_in_force(block_size: int | None) -> Settings:
    """Those of the patch where it is in place, else those of the environment; `block_size` counts
    before both. Raises ValueError for a bad one."""
    planner = patch.active()
    if planner is None:
        return resolve(True, block_size)
    if block_size is None:
        return planner.settings
    return replace(planner.settings, block_size=checked_block_size(block_size))


def mlx_is_known() -> bool:
    """Whether calls can be planned for this MLX: it was checked, or it is newer and can be asked.
    Warns the first time that it was not checked."""
    return _is_known(mlx_version())


@lru_cache
def _is_known(version: str) -> bool:
    release, known = mlx_release(version), known_range()
    if release in known_releases():
        return True
    if release < known_releases()[0] or not asked.can_be_read():
        logger.warning(
            "flash attention: off: mlx %s is not a version this package knows (%s, and newer ones"
            " that tell what they fuse)",
            version,
            known,
        )
        return False
    logger.warning(
        "flash attention: mlx %s is none of the versions this package was checked with (%s): it is"
        " asked what it fuses",
        version,
        known,
    )
    return True
