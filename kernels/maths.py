"""Functions of one entry of the Gram, in fp32, as the epilogues share them."""

from lossbench.kernels.language import INTERPRETED, jit, tl

INTERPRETER = tl.constexpr(INTERPRETED)


@jit
def log2(x):
    """The GPU's own logarithm: 2^-22 off, which is enough away from x = 1."""
    if INTERPRETER:
        return tl.log2(x)
    return tl.inline_asm_elementwise(
        "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@jit
def reciprocal(x):
    """1 / x by the GPU's own instruction: one unit in the last place off."""
    if INTERPRETER:
        return 1 / x
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@jit
def half_log1p(u):
    """-1/2 ln(1 + u) for -0.16 <= u <= 1/16, to the last digits of a small u.

    u times a polynomial that was fitted for the least relative error, 1e-8; fp32 makes it 1.4e-7.
    """
    p = 0.12488685548305511 + u * (u * 0.10969740897417068 - 0.09822249412536621)
    p = -0.5 + u * (0.25000011920928955 + u * (u * p - 0.16667594015598297))
    return u * p


@jit
def mutual_information(rho, gap, eps):
    """The dependency, -1/2 ln(1 - rho^2 + eps), and 1 / (1 - rho^2 + eps), its slope over rho.

    Args:
        rho: a correlation.
        gap: 1 - |rho|, if it is known better than from rho.
        eps: as in the formula.
    """
    # where rho is rounded above 1, its gap is negative; NaN stays NaN
    argument = tl.maximum(gap * (2 - gap), 0.0, propagate_nan=tl.PropagateNan.ALL) + eps
    u = eps - rho * rho
    near_one = tl.abs(u + 0.04875) < 0.11125  # the argument: -0.16 < u < 1/16
    f = tl.where(near_one, half_log1p(u), -0.34657359027997264 * log2(argument))
    return f, reciprocal(argument)


@jit
def squared_information_near(x, y, weight, eps, p1):
    """The square of the dependency of small correlations, and ``weight`` times its slope in x.

    The slope in rho is 2 f rho / (1 + u), where u = eps - rho^2.

    Args:
        x: a product of rows, rho / c.
        y: x c^2.
        weight: multiplies the slope.
        eps: as in the formula.
        p1: not used.
    """
    u = eps - x * y
    f = half_log1p(u)
    half = 0.5 / weight
    return f * f, f * reciprocal(half + u * half) * y


@jit
def is_near(largest, eps, p1):
    """Whether that holds up to this |rho|."""
    return (largest <= 0.4) & (eps <= 0.0625)


@jit
def square(rho, scale, p1):
    """rho^2, and its slope times ``scale``."""
    return rho * rho, 2 * scale * rho


@jit
def no_part(rho, gap, p0, p1):
    """A positive whose part of the loss depends on all pairs: it is not known yet."""
    return 0.0, 0.0, 0.0
