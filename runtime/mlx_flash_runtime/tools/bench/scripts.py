"""A script run with and without flash attention, in turns, as processes."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .processes import Outcome
from .timing import turns

FLAG = "--disable-flash-attention"
MODES = ("ours", "stock")
WARM_UPS = 1


class ScriptFailed(Exception):
    """The script did not end as it should; the message says how, and its last words."""


class NotPatched(Exception):
    """The script never called `enable_flash_attention`, so that there is nothing to switch."""


@dataclass(frozen=True)
class Script:
    """A command line that runs a Python script. `name` is the script's as it was given. `switch` is
    where the flag goes, None where the environment alone switches: the script's text does not have
    the flag."""

    command: tuple[str, ...]
    name: str
    switch: int | None

    def without(self) -> list[str]:
        """The command line with flash attention disabled."""
        command = list(self.command)
        if self.switch is not None:
            command.insert(self.switch, FLAG)
        return command


def find_script(command: Sequence[str]) -> Script:
    """The script of a command line: its first word that names a .py file.

    Raises FileNotFoundError where there is no such file, and for a notebook.
    """
    for index, word in enumerate(command):
        if word.endswith(".ipynb"):
            raise FileNotFoundError(f"{word} is a notebook; compare runs scripts")
        if word.endswith(".py"):
            path = Path(word)
            if not path.is_file():
                raise FileNotFoundError(f"{word}: no such file")
            has_flag = FLAG in path.read_text(encoding="utf-8", errors="replace")
            # Straight after the script: in front of a subcommand of its own.
            return Script(tuple(command), word, index + 1 if has_flag else None)
    return Script(tuple(command), command[0], None)


def need_program(name: str) -> None:
    """Raises FileNotFoundError where there is no program of that name."""
    if shutil.which(name) is None:
        advice = f"; a script runs as python {name}" if name.endswith(".py") else ""
        raise FileNotFoundError(f"{name} cannot be run: no such program{advice}")


def measure(
    script: Script,
    runs: int,
    *,
    stdin: Path | None,
    timeout: float,
    client: Sequence[str] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Outcome]]:
    """The outcomes of `runs` runs of each mode, in turns, after WARM_UPS of each, which fill
    caches and are not timed: MLX compiles kernels for each kind of attention. Their outputs count:
    they come first.

    Raises NotPatched, ScriptFailed.
    """
    for mode in turns(MODES, WARM_UPS + runs):
        command = script.without() if mode == "stock" else list(script.command)
        try:
            outcome = processes.run(
                command, disabled=mode == "stock", stdin=stdin, timeout=timeout, client=client
            )
        except processes.TimedOut:
            raise ScriptFailed(
                f"{script.name} did not end within {timeout:g} s and was ended. A server ends "
                "after its --client COMMAND; --stdin FILE gives an input that ends, --timeout more "
                "time"
            ) from None
        except OSError as error:
            raise ScriptFailed(
                f"{error.filename or command[0]} cannot be run: {error.strerror}"
            ) from error
        _check(script, mode, outcome)
        progress()
        yield mode, outcome


def _check(script: Script, mode: str, outcome: Outcome) -> None:
    if outcome.returncode:
        raise ScriptFailed(_failure(script, mode, outcome))
    if outcome.report is None:
        # A launcher may end well though the script that it was to start did not.
        said = f"\n{_last_words(outcome.stderr)}" if outcome.stderr.strip() else ""
        raise NotPatched(
            f"{script.name} did not enable flash attention: it is not patched, or the runtime is "
            f"not installed for its Python{_way_out(script)}{said}"
        )
    if mode != "stock" and not outcome.report["enabled"]:
        raise NotPatched(
            f"{script.name} ran with flash attention off: its command line or this MLX turns it off"
        )


def _way_out(script: Script) -> str:
    """How the program would run with flash attention, where that is known."""
    if script.name.endswith(".py"):
        return f". Patch it: flash-integrate {shlex.quote(script.name)}"
    program, *words = script.command
    if words[:1] == ["-m"]:
        runner = shlex.join([program, "-m", "mlx_flash_runtime", *words[:2]])
        return f". Without a patch: {runner} ..."
    return ""


def _failure(script: Script, mode: str, outcome: Outcome) -> str:
    """How a run ended that failed, and its last words."""
    status = outcome.returncode
    how = f"status {status}" if status > 0 else f"signal {-status}"
    words = outcome.stderr.strip() or outcome.stdout.strip() or "(it printed nothing)"
    which = "without flash attention" if mode == "stock" else "with flash attention"
    who = f"the client of {script.name}" if outcome.client_failed else script.name
    return f"{who} ended with {how}, {which}:\n{_last_words(words)}"


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-5:])
