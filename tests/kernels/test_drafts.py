"""Triton kernels over draft trees: on a GPU where there is one, else in the interpreter."""

from __future__ import annotations

import pytest
import torch

from tests.draft_trees import draft_forest, random_parents
from tests.forests import SPECS
from tests.kernels.test_triton import check


@pytest.mark.parametrize(("variant", "page_size"), [("gqa", 1), ("gqa", 16), ("gta", 16)])
def test_drafts_see_their_ancestors_alone(variant: str, page_size: int) -> None:
    check(draft_forest(random_parents([8, 27], 1), page_size, 48), SPECS[variant])


def test_sixty_four_drafts_agree_in_half_precision() -> None:
    check(draft_forest(random_parents([64], 2), 16, 32), SPECS["mqa"], torch.float16)
