"""Self-supervised losses: the maths, one file a loss. Imports torch alone.

import losses

loss = losses.create("smi", lambda_=10.0)
value = loss(z_a, z_b)
"""

import importlib
import pkgutil

from losses.costs import PASSES, Cost, all_gather_bytes
from losses.loss import Loss
from losses.naming import pick
from losses.registry import LossSpec, cost_model, create, implementation, names, register, spec

__all__ = [
    "PASSES",
    "Cost",
    "Loss",
    "LossSpec",
    "all_gather_bytes",
    "cost_model",
    "create",
    "implementation",
    "names",
    "pick",
    "register",
    "spec",
]

# Every loss file registers itself when imported, so a new loss is a new file and nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
