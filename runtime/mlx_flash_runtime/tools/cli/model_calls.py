"""The attention calls of a model, by its configuration alone."""

from __future__ import annotations

from pathlib import Path

from ...problem import Device
from ...settings import resolve
from ..bench import models
from ..rehearsal import LayerCalls, NotLazy, rehearse
from .errors import Failure, Usage, need_mlx_lm


def calls_of(
    folder: Path, shape: tuple[int, int], dtype: str | None, phase: str, device: Device
) -> list[LayerCalls]:
    """The distinct attention calls of the model in `folder` on so many rows and tokens, in one of
    `problems.PHASES`. Raises Usage for a folder that is no model, Failure for a model that does
    not run."""
    need_mlx_lm("--model needs")
    from mlx_lm.models.cache import make_prompt_cache

    train = phase == "train"
    try:
        module = models.by_config(folder, dtype)
        module.train(train)
        cache = None if train else make_prompt_cache(module)
        steps = [lambda tokens: module(tokens, cache=cache)]
        if phase == "decode":
            steps.append(lambda tokens: module(tokens[:, :1], cache=cache))
        return rehearse(steps, shape, device, resolve(True, None), training=train)[-1]
    except models.NotAModel as error:
        raise Usage(str(error)) from error
    except NotLazy as error:
        raise Failure(f"{folder} cannot be explained without its weights: {error}") from error
    except Exception as error:  # a model's own code, on a configuration that may be wrong
        raise Failure(f"{folder} does not run: {type(error).__name__}: {error}") from error
