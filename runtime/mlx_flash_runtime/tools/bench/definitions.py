"""What the words in the tables of each kind of result mean, and how their numbers were measured."""

from __future__ import annotations

from collections.abc import Sequence

from .model_check import MOST_ROUNDING
from .tables import Row

UNSTEADY = "~"
UNSTEADY_MEANS = (
    f"{UNSTEADY} unsteady: of one of the two that are compared, the middle half of the rounds "
    "spans more than a tenth of their median, so that the ratio is a rough one."
)

GRID_DEFINITIONS = (
    "plain: softmax(QKᵀ)V in MLX operations; stock: mx.fast.scaled_dot_product_attention; ours: "
    "the same call with flash attention enabled, on the routes named: those of the timed calls, "
    "with their shares of them.",
    "Times are medians in milliseconds per call, all candidates in one process, in turns, after a "
    "warm-up, Python's garbage collector off; the ± is half the interquartile range. A timed "
    "region chains as many calls of each candidate as the fastest takes to last 10 ms, 256 at "
    "most.",
    "Speedups divide the times shown in the same row. Mean: arithmetic, over the rows that have "
    "both times.",
    UNSTEADY_MEANS,
    "Stability: 1 minus the interquartile range over the median, of ours; 1 is the same time in "
    "every round.",
    "Tokens/s: queries of all batch entries over the time of ours.",
    "Memory: peak of one call beyond its inputs, plain / stock / ours.",
    "Error: largest difference from float64 attention, relative to the largest element; in "
    "training, of the output and the three gradients. A row is wrong where ours exceeds twice the "
    "error of stock or plain in the same type.",
)


WORKFLOW_DEFINITIONS = (
    "stock: MLX's own attention; ours: flash attention enabled, on the routes named (those of the "
    "attention calls of the timed runs, with their shares of the calls; of a compiled training "
    "step those that it was compiled with); both in one process, in turns, after two runs of "
    "each, Python's garbage collector off; the ± is half the interquartile range.",
    "Tokens/s: tokens trained or evaluated per second; in chat and batch those of the replies "
    "over the whole time, prompts included. Length: tokens of a training row, of an evaluated "
    "text, of a prompt (in batch the longest; the shortest has half; in chat a token fewer in "
    "each run, as no two turns of a chat have one length). × stock divides the tokens/s of the "
    "same row.",
    UNSTEADY_MEANS,
    "First token: median milliseconds until the first token of a reply (in batch: of any). Then: "
    "the tokens after it, per second of a reply.",
    "Memory: peak in MiB, stock / ours, everything included: model, optimizer, cache.",
    "Attention: the share of stock's time that is gone when attention is replaced by adding "
    "numbers of the output's shape, which still need q, k and v; at most: the speedup if "
    "attention took no time at all (Amdahl's law).",
    "By layer: how far the outputs of attention are from those of stock on the same inputs, "
    "relative to the largest, in the layer where they are farthest, for one row of up to 2,048 "
    "tokens; in brackets that of stock with the keys in reverse order, which is the same attention "
    "in other roundings. Logits: the same of the model's output; not comparable where other "
    "roundings alone change it by a tenth or more. A row is wrong where ours is more than ten "
    "times as far as other roundings are.",
    "Data are random tokens; a model that was made for the measurement has random weights.",
)
CHAOTIC = (
    "Where the difference of the logits in brackets is itself of the size of the logits, as with "
    "the random weights of the shape gemma, stock alone turns roundings into other logits: the "
    "comparison of logits says nothing there, in either direction. That the routes are right is "
    "then known from the outputs of attention by layer, or, where a result of an earlier release "
    "has none, from single calls, in `mlx-flash bench grid` and in the tests."
)


def is_chaotic(rows: Sequence[Row]) -> bool:
    """Whether CHAOTIC is to be said of rows of workflows, as their differences look like errors
    otherwise."""
    return any((row.get("rounding") or 0) > MOST_ROUNDING for row in rows)


COMPARE_DEFINITIONS = (
    "Medians over the runs, each a process of its own, in turns, after one of each kind that is "
    "not timed. Gain: how many times faster, smaller or more with flash attention than without, as "
    "the ratio of the medians; its 95 % interval is by bootstrap over the rounds (from five on).",
    "Seconds are wall time from start to end (of a server's client, if there is one), loading "
    "included. Peak MiB: the process's resident memory as the operating system counts it; a GPU's "
    "own memory is not in it. Of MLX: what MLX held at a time, on a GPU the GPU's, unless the "
    "script resets that count.",
    "Outputs: times, sizes and speeds (by their units) do not count, nor text and numbers that "
    "differ between runs of the same kind; all other text must be equal and numbers within 0.1 % "
    "or 0.000001 of each other.",
)
