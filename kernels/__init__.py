"""Triton kernels. Each module registers implementations of losses. There is none yet."""

from losses import import_all

import_all(__name__, __path__)
