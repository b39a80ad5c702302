"""Without a GPU, Triton kernels run on the CPU in its interpreter, asked for before imports."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
