"""Every measurement behind docs/performance.md, on one machine: a command each, a file each.

    python benchmarks/suite.py cpu|h200 [--only TEXT ...] [--into FOLDER] [--seconds N] [--gpus N]
                                        [--commit SHA] [--list]

Writes NAME.json into benchmarks/results for each, as soon as there are rows. One that takes three
times as long as it should is interrupted. Where there are but so many seconds for all, tables of
many rows share what the others leave, and have fewer rows. After that, `python
benchmarks/performance_page.py` makes the page anew. On a Mac, `measure.py` is what to run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from depends import provenance
from measuring import POLL, Measuring
from store import RESULTS
from suite_commands import BACKENDS, MACHINES, SUITES, Measurement

_PATIENCE = 3


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machine", choices=MACHINES)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="those with this in their name"
    )
    parser.add_argument(
        "--into", type=Path, default=RESULTS, metavar="FOLDER", help="where the files go"
    )
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), metavar="N", help="for all of them"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="so many at once, each on a GPU of its own"
    )
    parser.add_argument("--commit", metavar="SHA", help="what is measured, outside of a checkout")
    parser.add_argument(
        "--list", action="store_true", help="print the commands instead of running them"
    )
    args = parser.parse_args()
    suite = SUITES[args.machine]
    chosen = {name: suite[name] for name in suite if has_any(name, args.only)}
    if not chosen:
        words = " or ".join(map(repr, args.only))
        parser.error(f"no measurement has {words} in its name: {', '.join(suite)}")
    if args.list:
        for name, one in chosen.items():
            print(f"{one.seconds:4.0f} s  {one.command} --json {args.into / name}.json")
        return 0
    args.into.mkdir(parents=True, exist_ok=True)
    unfinished = measure(chosen, args)
    if unfinished:
        print(f"failed, or not finished in time: {', '.join(unfinished)}", file=sys.stderr)
    return 1 if unfinished else 0


def has_any(name: str, texts: list[str]) -> bool:
    """Whether one of the texts is in a name."""
    return any(text in name for text in texts)


def measure(chosen: dict[str, Measurement], args: argparse.Namespace) -> list[str]:
    """Runs them in their order; the names of those that did not end well, or not in time."""
    end = time.monotonic() + args.seconds
    waiting = list(chosen)
    tables = sum(one.seconds for one in chosen.values() if one.table)  # those that have not ended
    running: dict[int, tuple[str, Measuring]] = {}
    unfinished = []
    try:
        while waiting or running:
            if time.monotonic() >= end:
                unfinished += waiting
                waiting.clear()
            for gpu in range(args.gpus):
                if waiting and gpu not in running:
                    beside = [chosen[name] for name, _ in running.values()]
                    if not may_start(chosen[waiting[0]], beside):
                        break
                    name = waiting.pop(0)
                    one, left = chosen[name], end - time.monotonic()
                    seconds = _PATIENCE * one.seconds
                    if one.table and left < float("inf"):
                        seconds = left * min(1, args.gpus * one.seconds / tables)
                    limit = time.monotonic() + min(left, seconds)
                    running[gpu] = name, start(name, one, limit, gpu, args)
            for gpu, (name, measuring) in list(running.items()):
                if measuring.has_ended():
                    del running[gpu]
                    tables -= chosen[name].seconds if chosen[name].table else 0
                    took = f"{measuring.seconds:.0f} s of {chosen[name].seconds:.0f}"
                    ended_well = measuring.close()
                    print(f"{name}: {took}{'' if ended_well else ', UNFINISHED'}", flush=True)
                    if not ended_well:
                        unfinished.append(name)
            time.sleep(POLL)
    finally:
        for _, measuring in running.values():
            measuring.close()
    return unfinished


def may_start(one: Measurement, running: list[Measurement]) -> bool:
    """Whether one may run beside those that are."""
    return not running or not any(each.alone for each in (one, *running))


def start(
    name: str, one: Measurement, limit: float, gpu: int, args: argparse.Namespace
) -> Measuring:
    """Starts one that may run until `limit`."""
    path = args.into / f"{name}.json"
    code = provenance(name, BACKENDS[args.machine])
    code["commit"] = args.commit or code["commit"]
    several = args.gpus > 1
    if several and not one.alone:
        code["beside"] = args.gpus - 1
    print(f"$ {one.command} --json {path}", flush=True)
    return Measuring(
        one.command,
        path,
        code,
        limit,
        log=path.with_suffix(".log") if several else None,
        environment={"CUDA_VISIBLE_DEVICES": str(gpu)} if several else {},
    )


if __name__ == "__main__":
    sys.exit(main())
