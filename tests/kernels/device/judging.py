"""When kernels are as good as the reference in the same dtype."""

import torch
from rounding import outcome

from lossbench import losses

NARROW = [torch.bfloat16, torch.float16]
TOLERANCE = {
    torch.bfloat16: {"value": 1e-3, "gradient": 1e-2},
    torch.float16: {"value": 1e-3, "gradient": 1e-2},
}
"""What rounding the operands of the products to 16 bits adds to the reference's own error."""
OPERAND = 2.0**-8
"""Half an ulp of bf16 over a value: the most that rounding an operand changes it by."""
SLACK = 8


def on(device, found):
    return {name: value.to(device) for name, value in found.items()}


def fused_outcome(name, hyperparameters, views, device, **options):
    loss = losses.create(name, "triton", **hyperparameters, **options)
    return on("cpu", outcome(loss, [view.to(device) for view in views]))


def errors(found, truth):
    assert found.keys() == truth.keys()
    return {each: torch.linalg.vector_norm(found[each] - truth[each]).item() for each in truth}


def lengths(truth):
    return {each: torch.linalg.vector_norm(value).item() for each, value in truth.items()}


def narrow_truth(name, hyperparameters, views):
    """Truth about the views, and how far off the reference is in their dtype."""
    reference = losses.create(name, **hyperparameters)
    truth = outcome(reference, [view.double() for view in views])
    return truth, errors(outcome(reference, views), truth)


def assert_as_good_as_the_reference(found, truth, own, dtype, noise=None):
    """error(kernels) <= error(reference in the same dtype) + tolerance."""
    for each, error in errors(found, truth).items():
        tolerance = TOLERANCE[dtype]["gradient" if each.startswith("gradient") else "value"]
        allowed = own[each] + tolerance * lengths(truth)[each] + (noise or {}).get(each, 0.0)
        if each not in ("value", "gradient of value"):  # a term may be small beside the others
            whole = "gradient of value" if each.startswith("gradient") else "value"
            allowed += tolerance * lengths(truth)[whole]
        assert error <= allowed, f"{each} is {error:.3g} off, {allowed:.3g} is permitted"
