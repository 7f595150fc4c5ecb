"""The properties of every rewrite, over programs that hypothesmith makes of Python's grammar: lines
that stand in no file, continued where nobody continues one."""

from __future__ import annotations

import ast
import warnings

import hypothesmith
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flash_integrate.cli.stdin import Piped, planned, undone
from flash_integrate.errors import FileError
from flash_integrate.planning.plan import Status

USES = (
    "\nimport mlx_lm\nmlx_lm.load('model')\n",
    "\nimport mlx_lm\nif __name__ == '__main__':\n    mlx_lm.load('model')\n",
    "\nimport argparse\nimport mlx_lm\nparser = argparse.ArgumentParser()\n"
    "args = parser.parse_args()\nmlx_lm.load('model')\n",
)


# Making a program takes hypothesmith longer than Hypothesis expects of it.
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=hypothesmith.from_node(), use=st.sampled_from(USES))
def test_a_rewrite_parses_is_idempotent_and_reversible(program: str, use: str) -> None:
    assume("\f" not in program)  # see below
    before = (program.rstrip("\n") + use).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of `1is 2` and the like
        outcome = planned(Piped(before))
        assert outcome.status is Status.CHANGED
        ast.parse(outcome.after)
        assert planned(Piped(outcome.after)).status is Status.INTEGRATED
        assert undone(Piped(outcome.after)).after == before


def test_a_file_that_is_indented_with_form_feeds_is_left_alone() -> None:
    with pytest.raises(FileError, match="indented with form feeds"):
        planned(Piped(b"class A:\n\f pass\n" + USES[0].encode()))
