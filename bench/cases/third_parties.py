"""Fused kernels of others, timed beside ours in the gpu suite where they can be imported.

They compute another loss with as many products, so each brings the eager code that it must equal.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import make_cases

Pair = Callable[[Tensor, Tensor], Tensor]
CONTENDERS = {"siglip_kernel": ("smi", "siglip-kernel=lossbench.bench.cases.third_parties:siglip")}
"""Package -> the loss that it is timed beside, and how it is asked for, as by ``--contender``."""
LOG_SCALE, BIAS = math.log(10), -10.0
"""What training starts from in Zhai et al., 2023, section 3."""


def beside(cases: Sequence[Case]) -> list[Case]:
    """Cases of those whose packages can be imported: one wherever eager code is measured.

    Some packages cannot be imported without a GPU.
    """
    eager = [replace(case, products="") for case in cases if case.implementation == "reference"]
    found: list[Case] = []
    for package, (loss, text) in CONTENDERS.items():
        if any(case.loss == loss for case in eager) and _imports(package):
            found += make_cases(f"{loss}.{text}", eager)
    return found


def siglip(z_a: Tensor, z_b: Tensor) -> Tensor:
    """siglip-kernel's loss over AB, AA and BB: 3 N^2 D multiply-adds, of which SMI needs 2."""
    from siglip_kernel import fused_siglip_loss

    # filled on the device: a copy from the host would have no place in a CUDA graph
    log_scale, bias = z_a.new_full((), LOG_SCALE), z_a.new_full((), BIAS)
    return _of_all_pairs(z_a, z_b, lambda x, y: fused_siglip_loss(x, y, log_scale, bias))


def siglip_eager(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The same in plain operations: -sum over i, j of log sigmoid(y_ij (t x_i y_j + b)) / N.

    y_ij is 1 for i = j, else -1 (Zhai et al., 2023, eq. in section 3).
    """

    def pair(x: Tensor, y: Tensor) -> Tensor:
        logits = x @ y.T * math.exp(LOG_SCALE) + BIAS
        negatives = logsigmoid(-logits).sum() - logsigmoid(-logits.diagonal()).sum()
        return -(negatives + logsigmoid(logits.diagonal()).sum()) / len(x)

    return _of_all_pairs(z_a, z_b, pair)


siglip.reference = siglip_eager  # type: ignore[attr-defined]


def _of_all_pairs(z_a: Tensor, z_b: Tensor, pair: Pair) -> Tensor:
    a, b = normalize(z_a, dim=1), normalize(z_b, dim=1)
    return pair(a, b) + pair(a, a) + pair(b, b)


def _imports(package: str) -> bool:
    try:
        importlib.import_module(package)
    except Exception:  # whatever a package does that looks for a GPU
        return False
    return True
