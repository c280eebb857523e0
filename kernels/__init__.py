"""Triton kernels. Each module registers implementations of losses.

They can be imported without Triton and without a GPU: implementation ``triton`` then says why it
cannot run.
"""

from lossbench.kernels.ops import FVCORE_HANDLES
from lossbench.losses import import_all

__all__ = ["FVCORE_HANDLES"]

# by its full name: where the repository is the current folder, others find this as "kernels" too
import_all("lossbench.kernels", __path__)
