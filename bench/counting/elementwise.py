"""Arithmetic beside matrix products: what operations do to each element, by stated numbers.

An addition, multiplication, division, comparison or maximum is one operation. A function that is
computed by a series or a table (``exp``, ``log``, ``sqrt``, ``tanh``, ...) is a transcendental,
counted apart, as it takes several times as long. Copies, masks and random numbers are none: their
cost is the bytes that they move. Numbers are of the formula, not of a library's code for it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Amount(NamedTuple):
    """Arithmetic of a call, or of each element.

    Attributes:
        operations: additions, multiplications and the like.
        transcendentals: exponentials, logarithms, roots and the like.
    """

    operations: float
    transcendentals: float


NONE, ONE, FUNCTION = Amount(0, 0), Amount(1, 0), Amount(0, 1)
FUNCTIONS = (
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "sin", "cos"),
    *("tan", "tanh", "sinh", "cosh", "asin", "acos", "atan", "erf", "erfc", "erfinv", "lgamma"),
    *("digamma", "special_erfcx", "acosh", "asinh", "atanh", "atan2"),
)
OF_RESULT = {
    **dict.fromkeys(FUNCTIONS, FUNCTION),
    "sigmoid": Amount(2, 1),
    "silu": Amount(3, 1),
    "gelu": Amount(4, 1),
    "softplus": Amount(2, 2),
    "log_sigmoid_forward": Amount(3, 2),
    "logaddexp": Amount(4, 2),
    "elu": Amount(2, 1),
    "lerp": Amount(3, 0),
    "addcmul": Amount(2, 0),
    "addcdiv": Amount(3, 0),
    "sigmoid_backward": Amount(3, 0),
    "tanh_backward": Amount(3, 0),
    "log_sigmoid_backward": Amount(4, 1),
    "softplus_backward": Amount(3, 1),
    "silu_backward": Amount(6, 1),
    "gelu_backward": Amount(8, 2),
}
"""Of each element of the result; of another pointwise operation, one."""
OF_INPUT = {
    **dict.fromkeys(("sum", "mean", "nansum", "prod", "cumsum", "cumprod", "trace"), ONE),
    **dict.fromkeys(("amax", "amin", "max", "min", "argmax", "argmin", "aminmax"), ONE),
    **dict.fromkeys(("any", "all", "count_nonzero", "sort", "topk", "kthvalue", "median"), ONE),
    **dict.fromkeys(("cummax", "cummin", "mode", "unique_consecutive", "bincount"), ONE),
    **dict.fromkeys(("linalg_vector_norm", "norm", "dot", "vdot"), Amount(2, 0)),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), Amount(4, 0)),
    **dict.fromkeys(("logsumexp", "logcumsumexp", "_logcumsumexp"), Amount(3, 1)),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), Amount(4, 1)),
    "_softmax_backward_data": Amount(4, 0),
    "_log_softmax_backward_data": Amount(3, 1),
    **dict.fromkeys(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"), Amount(3, 0)),
    **dict.fromkeys(("mse_loss_backward", "smooth_l1_loss_backward"), Amount(3, 0)),
    **dict.fromkeys(("nll_loss_forward", "nll_loss_backward"), NONE),
    **dict.fromkeys(("native_layer_norm", "native_group_norm"), Amount(7, 0)),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), Amount(7, 0)),
    "native_layer_norm_backward": Amount(12, 0),
    "native_batch_norm_backward": Amount(12, 0),
    "_fused_rms_norm": Amount(4, 0),
    "index_add": ONE,
    "scatter_add": ONE,
    "scatter_reduce": ONE,
    "embedding_dense_backward": ONE,
}
"""Of each element of the first input: what reduces it, or normalises along it."""
BESIDE = {
    **dict.fromkeys(("_pdist_forward", "_cdist_forward", "_euclidean_dist"), Amount(3, 1)),
    **dict.fromkeys(("_pdist_backward", "_cdist_backward"), Amount(2, 0)),
}
"""Of each distance, beside the product that it is counted as: the norms are added, and the root."""
ATTENTION = "_scaled_dot_product"
SCORE, SCORE_BACKWARD = Amount(5, 1), Amount(6, 1)
"""Of each score of an attention beside its products: softmax; its backward pass makes it again."""
MOVES = frozenset(
    (
        *("_to_copy", "copy", "clone", "contiguous", "cat", "stack", "repeat", "roll", "flip"),
        *("index", "index_select", "index_put", "_unsafe_index", "_unsafe_index_put", "gather"),
        *("scatter", "take", "embedding", "masked_fill", "masked_select", "masked_scatter"),
        *("nonzero", "unique_dim", "_unique2", "select_scatter", "slice_scatter", "tril", "triu"),
        *("diagonal_scatter", "diagonal_backward", "select_backward", "slice_backward"),
        *("diag_embed", "diagonal_copy", "constant_pad_nd", "where", "fill", "zero", "zeros"),
        *("ones", "full", "empty", "zeros_like", "ones_like", "full_like", "new_zeros"),
        *("new_ones", "new_full", "scalar_tensor", "arange", "linspace", "eye", "one_hot"),
        *("rand", "randn", "rand_like", "randn_like", "randint", "randperm", "normal"),
        *("bernoulli", "uniform", "native_dropout", "native_dropout_backward", "multinomial"),
        *("_local_scalar_dense", "item", "lift", "lift_fresh_copy", "tril_indices"),
        *("triu_indices", "expand_copy", "view_copy", "unfold_copy", "as_strided_scatter"),
        *("masked_fill_backward", "unfold_backward", "index_copy", "index_fill", "meshgrid"),
        *("_reshape_copy", "_reshape_alias_copy", "resize", "random", "exponential", "set_"),
        *("_unsafe_view", "_linalg_check_errors", "alias", "_assert_scalar"),
        *("detach", "split_with_sizes_copy", "_foreach_copy", "_assert_async", "bucketize"),
        *("searchsorted", "complex", "view_as_real_copy", "_conj_physical", "isfinite"),
    )
)
"""What only moves, makes or chooses elements."""


def of_each(func: Any) -> tuple[Amount, bool] | None:
    """Arithmetic of each element, and whether that is of the first input rather than the result.

    Args:
        func: an operator that torch dispatches.

    Returns:
        None where nothing is known of it.
    """
    name = _name(func)
    if name in MOVES:
        return NONE, False
    if name in OF_INPUT:
        return OF_INPUT[name], True
    if name in OF_RESULT:
        return OF_RESULT[name], False
    return (ONE, False) if torch.Tag.pointwise in func.tags else None


@cache
def _name(func: Any) -> str:
    """Without the namespace and the mark of what is done in place."""
    name: str = func._schema.name.partition("::")[2]
    return name if name in MOVES else name.removesuffix("_")


def of_call(
    func: Any, each: tuple[Amount, bool], args: Sequence[Any], result: Any
) -> tuple[int, int]:
    """Operations and transcendentals of a call."""
    amount, of_input = each
    if _name(func) == "pow" and len(args) > 1:
        amount = _power(args[1])
    of = args[0] if of_input else result
    first = of[0] if isinstance(of, (list, tuple)) and of else of
    elements = first.numel() if isinstance(first, Tensor) else 0
    return round(amount.operations * elements), round(amount.transcendentals * elements)


def beside_product(func: Any, args: Sequence[Any], result: Any) -> tuple[int, int]:
    """What an operation does beside the matrix products that it is counted as."""
    name = _name(func)
    if name.startswith(ATTENTION):
        is_backward = "backward" in name
        query, key = args[1:3] if is_backward else args[:2]
        elements = query.numel() // query.shape[-1] * key.shape[-2]
        amount = SCORE_BACKWARD if is_backward else SCORE
    else:
        of = args[0] if name.endswith("backward") else result
        elements = of.numel() if isinstance(of, Tensor) else 0
        amount = BESIDE.get(name, NONE)
    return round(amount.operations * elements), round(amount.transcendentals * elements)


def _power(exponent: Any) -> Amount:
    """Whole powers are products, by squaring, and a division; others have a logarithm."""
    if isinstance(exponent, (int, float)) and float(exponent).is_integer():
        whole = abs(int(exponent))
        products = max(0, whole.bit_length() + bin(whole).count("1") - 2)
        return Amount(products + (exponent < 0), 0)
    return FUNCTION if exponent in (0.5, -0.5) else Amount(1, 2)
