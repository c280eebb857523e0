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
def log1p_of_quotient(s):
    """ln((1 + s) / (1 - s)) for |s| <= 1/3: ln(1 + t) where s = t / (2 + t).

    To the last digits of a small t, which a logarithm of 1 + t loses: the series 2 artanh(s), whose
    next term is below 1e-8 of the first.
    """
    q = s * s
    series = 1 / 11 + q * (1 / 13 + q * (1 / 15))
    series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * series)))
    return 2 * s * (1 + q * series)


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
    small = tl.abs(rho) < 0.7
    t = tl.where(small, eps - rho * rho, 0.0)
    inverse = 1 / (argument * (2 + t))  # one division for two
    series = log1p_of_quotient(t * argument * inverse)
    logarithm = tl.where(small, series, 0.6931471805599453 * log2(argument))
    return -0.5 * logarithm, (2 + t) * inverse


@jit
def reciprocal(x):
    """1 / x by the GPU's own instruction: one unit in the last place off."""
    if INTERPRETER:
        return 1 / x
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@jit
def mutual_information_near(square, weight, eps, p1):
    """The squared dependency of correlations near 0, and ``weight`` times its slope over rho.

    With u = eps - rho^2 the dependency is -1/2 ln(1 + u): u times a polynomial, which is 8e-9 of
    it off for -1/2 <= u <= 1/16 (fitted for the least relative error; 1.3e-7 when evaluated in
    fp32). Its squared has the slope 2 f rho / (1 + u).

    Args:
        square: rho^2.
        weight: multiplies the slope.
        eps: as in the formula.
        p1: not used.
    """
    u = eps - square
    f = 0.7233735322952271 + u * 0.64202481508255
    f = 0.5062878131866455 + u * f
    f = 0.05703263357281685 + u * f
    f = 0.10121286660432816 + u * f
    f = -0.09934629499912262 + u * f
    f = 0.1249161958694458 + u * f
    f = -0.16667218506336212 + u * f
    f = 0.25000008940696716 + u * f
    f = u * (-0.5 + u * f)
    half = 0.5 / weight
    return f * f, f * reciprocal(half + u * half)


@jit
def mutual_information_is_near(largest_square, eps, p1):
    """Whether the polynomial holds up to this rho^2."""
    return (largest_square <= 0.5) & (eps <= 0.0625)


@jit
def square(rho, scale, p1):
    """rho^2, and its slope times ``scale``."""
    return rho * rho, 2 * scale * rho


@jit
def no_part(rho, gap, p0, p1):
    """A positive whose part of the loss depends on all pairs: it is not known yet."""
    return 0.0, 0.0, 0.0
