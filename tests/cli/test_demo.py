"""The demo's prompts: one file header, a dozen questions below it."""

from __future__ import annotations

from pathlib import Path

import bough
from bough.cli.prompts import read_prompts
from bough.engine.params import SamplingParams

DEMO = Path(bough.__file__).parents[1] / "examples" / "demo.jsonl"


def test_a_dozen_methods_share_the_header_of_a_file() -> None:
    prompts, bad = read_prompts(DEMO, SamplingParams())
    assert len(prompts) == 12 and not bad
    texts = [line.prompt for line in prompts]
    header = texts[0].rpartition("\n\n")[0]
    compile(header, "demo", "exec")
    assert len(header) > 1500
    for text in texts:
        assert text.startswith(header) and len(text) < 1.2 * len(header)
