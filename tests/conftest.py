"""Without a GPU, Triton kernels run on the CPU in its interpreter, which must be asked for first."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
