"""Self-supervised losses: the maths, one file a loss. Imports torch alone.

from lossbench import losses

loss = losses.create("smi", lambda_=10.0)
value = loss(z_a, z_b)
"""

from lossbench.losses.auto import Choice
from lossbench.losses.collectives import Imagined, World
from lossbench.losses.costs import (
    PASSES,
    Cost,
    Exchange,
    Problem,
    all_gather_bytes,
    all_reduce_bytes,
)
from lossbench.losses.discovery import import_all
from lossbench.losses.distributed import (
    DISTRIBUTIONS,
    FORMS,
    communicated_bytes,
    distribute,
    distributions,
    share_cost,
)
from lossbench.losses.inputs import Input
from lossbench.losses.loss import Loss
from lossbench.losses.naming import pick
from lossbench.losses.precision import PRODUCTS, products
from lossbench.losses.registry import (
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
    "Input",
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

# by its full name: where the repository is the current folder, others find this as "losses" too
import_all("lossbench.losses", __path__)
