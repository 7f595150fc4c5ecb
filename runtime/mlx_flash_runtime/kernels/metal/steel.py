"""MLX's own attention kernel for many queries, as text, from the headers that MLX is installed with
(`steel_attention.h`, MIT license): with a few lines changed, it skips what a mask hides.

Nothing of it is kept here. Where the headers of a release have not what is to be changed, each
once, there is no such kernel.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from ...environment.log import logger

_KERNELS = "mlx/backend/metal/kernels"
_ATTENTION = f"{_KERNELS}/steel/attn/kernels/steel_attention.h"
# What MLX gives to every kernel by itself.
_GIVEN = f"{_KERNELS}/utils.h"
_INCLUDE = re.compile(r'(?m)^#include "(mlx/[^"]+)".*$')
_CONSTANT = re.compile(r"(?m)^constant bool \w+ \[\[function_constant\(\d+\)\]\];$")
_KERNEL = re.compile(
    r"// clang-format off\s+template <[^{]*?int BV,[^{]*?\[\[kernel[^{]*?void attention\("
)


_OTHERS = "the headers of this MLX's kernel are not those that it is made from"


class Text(NamedTuple):
    """The kernel: what goes before it, and its body."""

    header: str
    body: str


class Unknown(Exception):
    """The headers of this MLX are not there, or are others."""


class _Change(NamedTuple):
    """Where something is put, which the body has to have once; `{}` of `text` is what is there."""

    pattern: str
    text: str


# Softcapped scores, in units of log(2) as the scores here.
_SOFTCAP = _Change(
    r"Stile\.elems\(\)\[ii\] \*= scale;",
    """{}
      if (SOFTCAP) {{
        const AccumType softcap = factor[1] * M_LOG2E_F;
        Stile.elems()[ii] = softcap * metal::precise::tanh(Stile.elems()[ii] / softcap);
      }}""",
)
# `first` and `last` have, for each query, the first and the last key that it sees. Both grow.
_INTERVALS = (
    _SOFTCAP,
    # Keys before the first that a block of queries sees are not looked at, ...
    _Change(
        r"kv_head_idx \* params->V_strides\[1\];.*\n",
        """{}
  const int first_query = int(tid.x) * BQ;
  const int last_query = metal::min(first_query + BQ, params->qL) - 1;
  const int first_block = first[first_query] / BK;
  K += int64_t(first_block) * BK * params->K_strides[2];
  V += int64_t(first_block) * BK * params->V_strides[2];
""",
    ),
    _Change(
        r"for \(int kb = 0; kb < kb_lim; kb\+\+\) \{",
        "for (int kb = first_block; kb < kb_lim; kb++) {{",
    ),
    # ... nor those after the last.
    _Change(r"int kb_lim = params->NK;", "int kb_lim = last[last_query] / BK + 1;"),
    # At the edges each score is looked at.
    _Change(
        r"\n    if \(has_mask\) \{\n      using stile_t",
        """
    if (kb * BK < first[last_query] || kb * BK + BK - 1 > last[first_query]) {{
      using own_tile_t = decltype(Stile);
      for (short i = 0; i < own_tile_t::kTileRows; i++) {{
        const int row = first_query + tm + sm + i * own_tile_t::kFragRows;
        const int from = first[metal::min(row, last_query)];
        const int to = last[metal::min(row, last_query)];
        for (short j = 0; j < own_tile_t::kTileCols; j++) {{
          const int key = kb * BK + sn + j * own_tile_t::kFragCols;
          for (short jj = 0; jj < own_tile_t::MMAFrag_t::kElemCols; jj++) {{
            if (key + jj < from || key + jj > to) {{
              Stile.frag_at(i, j)[jj] = Limits<AccumType>::finite_min;
            }}
          }}
        }}
      }}
    }}
{}""",
    ),
)
# `tiles` has, for each block of queries, the tiles of keys that any of them sees, see `mask_tiles`.
_TILES = (
    _SOFTCAP,
    # They are taken one after the other, the keys between them are not looked at.
    _Change(
        r"for \(int kb = 0; kb < kb_lim; kb\+\+\) \{",
        """const int tiles_head = tiles_shape[1] == 1 ? 0 : tid.y;
  const int tiles_batch = tiles_shape[0] == 1 ? 0 : tid.z;
  int64_t own_tile = (tiles_batch * tiles_shape[1] + tiles_head) * tiles_shape[2] + tid.x;
  own_tile *= tiles_shape[3];
  for (int next_kb = 0; tiles[own_tile] < 2 * params->NK; ++own_tile) {{
    const int kb = tiles[own_tile] / 2;
    loader_k.src += int64_t(kb - next_kb) * loader_k.tile_stride;
    loader_v.src += int64_t(kb - next_kb) * loader_v.tile_stride;
    next_kb = kb + 1;""",
    ),
    # The mask is read where it hides something, ...
    _Change(
        r"\n    if \(has_mask\) \{\n      using stile_t",
        """
    if (tiles[own_tile] % 2 == 1) {{
      using stile_t""",
    ),
    # ... and has nothing to say of what is no key: a query that sees none gets the mean of all
    # values.
    _Change(
        r"mfrag\[jj\] \? Stile\.frag_at\(i, j\)\[jj\] : neg_inf;",
        """mfrag[jj] ? Stile.frag_at(i, j)[jj]
                            : col_pos + jj < params->kL ? neg_inf : Limits<selem_t>::min;""",
    ),
)


@lru_cache(maxsize=2)
def text(by_tiles: bool = False) -> Text:
    """The kernel that takes `first` and `last`, or that which takes `tiles`, the function constants
    of MLX's as constants of the body. Raises Unknown."""
    try:
        given: set[str] = set()
        _flattened(_GIVEN, given)
        whole = _flattened(_ATTENTION, given)
    except OSError as error:
        raise Unknown(
            f"this MLX is installed without the headers of its kernels ({error})"
        ) from None
    kernel = _once(_KERNEL, whole)
    start = whole.index("{", kernel.end())
    stop = _end_of_block(whole, start)
    body = whole[start + 1 : stop]
    for change in _TILES if by_tiles else _INTERVALS:
        found = _once(re.compile(change.pattern), body)
        instead = change.text.format(found[0])
        body = body[: found.start()] + instead + body[found.end() :]
    return Text(_CONSTANT.sub("", whole[: kernel.start()]), body)


def _once(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = list(pattern.finditer(text))
    if len(found) != 1:
        logger.debug("flash attention: MLX's kernel has %d times %s", len(found), pattern.pattern)
        raise Unknown(_OTHERS)
    return found[0]


def _end_of_block(text: str, start: int) -> int:
    """Where the brace at `start` is closed."""
    depth = 0
    for found in re.compile("[{}]").finditer(text, start):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    raise Unknown(_OTHERS)


def _flattened(name: str, seen: set[str]) -> str:
    """A header with those of MLX's that it includes in their places, but those in `seen`, to which
    all of them are added. Raises OSError."""
    if name in seen:
        return ""
    seen.add(name)
    return _INCLUDE.sub(lambda found: _flattened(found[1], seen), _read(name))


def _read(name: str) -> str:
    return (Path(mx.__file__).parent / "include" / name).read_text(encoding="utf-8")
