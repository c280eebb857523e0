"""Triton kernels. Each module registers implementations of losses.

They can be imported without Triton and without a GPU: implementation ``triton`` then says why it
cannot run.
"""

from kernels.ops import FVCORE_HANDLES
from losses import import_all

__all__ = ["FVCORE_HANDLES"]

import_all(__name__, __path__)
