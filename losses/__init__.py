"""Self-supervised losses: the maths, one file a loss. Imports torch alone.

import losses

loss = losses.create("smi", lambda_=10.0)
value = loss(z_a, z_b)
"""

from losses.auto import Choice
from losses.collectives import Imagined, World
from losses.costs import PASSES, Cost, Exchange, Problem, all_gather_bytes, all_reduce_bytes
from losses.discovery import import_all
from losses.distributed import (
    DISTRIBUTIONS,
    FORMS,
    communicated_bytes,
    distribute,
    distributions,
    share_cost,
)
from losses.loss import Loss
from losses.naming import pick
from losses.precision import PRODUCTS, products
from losses.registry import (
    LossSpec,
    cost_model,
    create,
    explain,
    implementation,
    names,
    register,
    spec,
)

__all__ = [
    "DISTRIBUTIONS",
    "FORMS",
    "PASSES",
    "PRODUCTS",
    "Choice",
    "Cost",
    "Exchange",
    "Imagined",
    "Loss",
    "LossSpec",
    "Problem",
    "World",
    "all_gather_bytes",
    "all_reduce_bytes",
    "communicated_bytes",
    "cost_model",
    "create",
    "distribute",
    "distributions",
    "explain",
    "implementation",
    "import_all",
    "names",
    "pick",
    "products",
    "register",
    "share_cost",
    "spec",
]

import_all(__name__, __path__)
