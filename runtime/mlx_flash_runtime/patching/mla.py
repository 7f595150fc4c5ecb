"""Multi-head latent attention: the rope part of the scores, taken back into the product of queries
and keys.

mlx-lm's DeepSeek V3 and its relatives compute the rope part of all scores in one product and hand
it to MLX as an additive mask of H x L x S elements:

    pe_scores = (q_pe * self.scale) @ k_pe.swapaxes(-1, -2)
    if mask is not None:
        pe_scores = mx.where(
            mask, pe_scores, mx.array(mx.finfo(pe_scores.dtype).min, pe_scores.dtype)
        )
    ...
    output = scaled_dot_product_attention(q_nope, k, v, ..., scale=self.scale, mask=pe_scores)

That is attention with queries `[q_nope, q_pe]`, keys `[k, k_pe]` and the mask before. The function
that makes the call is recognised by its source, which is read once and has to say exactly this;
its variables then give the arrays. MLX is lazy: the scores that nobody asks for are never
computed.

The layers offer no better place: between rope and attention they call nothing by a name of their
module, and attention is given the scores alone. To take over a whole layer would be to copy it,
once for each of nine modules.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import weakref
from types import CodeType, FrameType
from typing import Any, NamedTuple

import mlx.core as mx

from ..planning.planner import Planner
from ..stock import gradient


class Folded(NamedTuple):
    """The arguments that say the same without rope scores."""

    q: mx.array
    k: mx.array
    mask: mx.array | str | None


class _Names(NamedTuple):
    scores: str
    q_rope: str
    k_rope: str
    mask: str | None


# By the identity of a code object, for as long as that lives.
_known: dict[int, tuple[weakref.ref[CodeType], _Names | None]] = {}
# mlx-lm's own scaled_dot_product_attention, the wrapper around it, and the layer that calls that.
_CALLERS = 3


def has_shape_of_rope_scores(mask: mx.array, q: Any) -> bool:
    """Whether the mask has a number for every score, for more than one query."""
    shape = mask.shape
    if len(shape) != 4 or shape[2] == 1 or mask.dtype == mx.bool_:
        return False
    return isinstance(q, mx.array) and bool(shape[:3] == q.shape[:3])


def without_rope_scores(
    planner: Planner,
    q: mx.array,
    k: Any,
    v: Any,
    mask: mx.array,
    sinks: Any,
    caller: FrameType,
) -> tuple[mx.array, mx.array, Any]:
    """q, k and mask of a call, without rope scores in the mask where it has some and the call is
    the better for it."""
    if planner.lookup(q, k, v, mask, sinks).problem is None:
        return q, k, mask
    folded = _fold(q, k, mask, caller)
    if folded is None:
        return q, k, mask
    # In training MLX's fused attention refuses masks that a gradient is asked of, as of rope
    # scores.
    is_better = planner.lookup(folded.q, folded.k, v, folded.mask, sinks).improves
    return folded if is_better or gradient.is_traced() else (q, k, mask)


def _fold(q: mx.array, k: mx.array, scores: mx.array, caller: FrameType | None) -> Folded | None:
    """Queries and keys with their rope parts, and the mask that the rope scores carry; None for
    any other mask.

    q is `[B, H, L, D]`, k `[B, H, S, D]`; the answer has head dim D + D_rope.
    """
    for _ in range(_CALLERS):
        if caller is None:
            return None
        names = _names(caller.f_code)
        if names is not None and caller.f_locals.get(names.scores) is scores:
            return _folded(q, k, names, caller.f_locals)
        caller = caller.f_back
    return None


def _folded(q: mx.array, k: mx.array, names: _Names, variables: dict[str, Any]) -> Folded | None:
    q_rope, k_rope = variables.get(names.q_rope), variables.get(names.k_rope)
    mask = variables.get(names.mask) if names.mask else None
    if not (isinstance(q_rope, mx.array) and isinstance(k_rope, mx.array)):
        return None
    if (
        q_rope.shape[:3] != q.shape[:3]
        or k_rope.shape[0] != k.shape[0]
        or k_rope.shape[2] != k.shape[2]
    ):
        return None
    if k_rope.shape[1] not in (1, k.shape[1]):
        return None
    k_rope = mx.broadcast_to(k_rope, (*k.shape[:3], k_rope.shape[-1]))
    return Folded(mx.concatenate([q, q_rope], axis=-1), mx.concatenate([k, k_rope], axis=-1), mask)


def _names(code: CodeType) -> _Names | None:
    known = _known.get(id(code))
    if known is None:
        key = id(code)
        going = weakref.ref(code, lambda _: _known.pop(key, None))
        known = _known[key] = (going, _read(code))
    return known[1]


def _read(code: CodeType) -> _Names | None:
    """The variables of a function that computes rope scores as this module's docstring says, else
    None."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return None
    scores = {
        call_mask
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "mask" and (call_mask := _name(keyword.value))
        if any(
            other.arg == "scale" and ast.unparse(other.value) == "self.scale"
            for other in node.keywords
        )
    }
    for name in scores:
        found = _rope_scores(tree, name)
        if found is not None:
            return found
    return None


def _rope_scores(tree: ast.AST, name: str) -> _Names | None:
    """`name` is assigned once as the product, and at most once more as the same under a mask;
    nothing it is made of changes afterwards."""
    assignments = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
    ]
    own = [node for node in assignments if name in _targets(node)]
    if not own or not all(isinstance(node, ast.Assign) for node in own) or len(own) > 2:
        return None
    product = own[0].value
    match product:
        case ast.BinOp(
            left=ast.BinOp(left=ast.Name(id=q_rope), op=ast.Mult(), right=factor),
            op=ast.MatMult(),
            right=ast.Call(
                func=ast.Attribute(value=ast.Name(id=k_rope), attr="swapaxes"), args=axes
            ),
        ) if ast.unparse(factor) == "self.scale" and [ast.unparse(axis) for axis in axes] == [
            "-1",
            "-2",
        ]:
            pass
        case _:
            return None
    mask: str | None = None
    if len(own) == 2:
        lowest = f"mx.array(mx.finfo({name}.dtype).min, {name}.dtype)"
        match own[1].value:
            case ast.Call(func=where, args=[ast.Name(id=seen), ast.Name(id=kept), hidden]) if (
                ast.unparse(where) == "mx.where" and kept == name and ast.unparse(hidden) == lowest
            ):
                mask = seen
            case _:
                return None
    names = {q_rope, k_rope, mask}
    last = own[0].lineno
    if any(node.lineno > last and names & _targets(node) for node in assignments):
        return None
    return _Names(name, q_rope, k_rope, mask)


def _targets(node: ast.Assign | ast.AugAssign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {
        part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
    }


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
