"""Programs built on a library of models reach attention through it, however they start."""

from __future__ import annotations

from pathlib import Path

import pytest
from outcomes import changed, run

# What such programs say to the library: its imports, and its own loading and running. Programs on
# mlx-whisper, whose attention is all written out, are `test_reach`'s.
PROGRAMS = {
    "mlx-vlm": (
        "from mlx_vlm import generate, load\nfrom mlx_vlm.prompt_utils import apply_chat_template",
        "model, processor = load({name})\n"
        "prompt = apply_chat_template(processor, model.config, 'What is it?', num_images=1)\n"
        "print(generate(model, processor, prompt, ['image.png']).text)",
    ),
    "mlx-audio": (
        "from mlx_audio.stt.utils import load_model",
        "print(load_model({name}).generate('speech.wav').text)",
    ),
    "mlx-embeddings": (
        "from mlx_embeddings import generate, load",
        "model, tokenizer = load({name})\n"
        "print(generate(model, tokenizer, texts=['one', 'two']).text_embeds)",
    ),
    "mflux": (
        "from mflux.models.flux.variants.txt2img.flux import Flux1",
        "Flux1.from_name({name}).generate_image(seed=2, prompt='a house').save('image.png')",
    ),
}
OPTIONS = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("model")
args = parser.parse_args()
"""


@pytest.mark.parametrize("library", PROGRAMS)
def test_every_way_to_start(tmp_path: Path, library: str) -> None:
    imports, work = PROGRAMS[library]
    named = work.format(name="'model'")
    body = named.replace("\n", "\n    ")
    files = {
        "flat.py": f"{imports}\n\n{named}\n",
        "options.py": f"{imports}\n{OPTIONS}\n{work.format(name='args.model')}\n",
        "guarded.py": f"{imports}\n\n\ndef main():\n    {body}\n\n\n"
        "if __name__ == '__main__':\n    main()\n",
        "uses_another.py": "from guarded import main\n\nmain()\n",
    }
    assert changed(run(tmp_path, files)) == {
        "flat.py": "flat-script",
        "options.py": "argparse-script",
        "guarded.py": "main-guard",
        "uses_another.py": "flat-script",
    }
