"""Functions of one entry of the Gram, in fp32, as the epilogues share them."""

from kernels.language import jit, tl


@jit
def log1p(t):
    """ln(1 + t) for -1/2 <= t <= 1/2, to the last digits of a small t, which ln loses.

    2 artanh(s) with s = t / (2 + t), |s| <= 1/3: the next term is below 1e-8 of the first.
    """
    s = t / (2 + t)
    q = s * s
    series = 1 / 11 + q * (1 / 13 + q * (1 / 15))
    series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * series)))
    return 2 * s * (1 + q * series)


@jit
def mutual_information(rho, gap, eps):
    """-1/2 ln(1 - rho^2 + eps), and 1 - rho^2 + eps.

    Args:
        rho: a correlation.
        gap: 1 - |rho|, if it is known better than from rho.
        eps: as in the formula.
    """
    # where rho is rounded above 1, its gap is negative
    argument = tl.maximum(gap * (2 - gap), 0.0) + eps
    small = tl.abs(rho) < 0.7
    t = tl.where(small, eps - rho * rho, 0.0)
    logarithm = tl.where(small, log1p(t), 0.6931471805599453 * tl.log2(argument))
    return -0.5 * logarithm, argument


@jit
def square(rho, p0, p1):
    """rho^2 and its slope."""
    return rho * rho, 2 * rho


@jit
def no_part(rho, gap, p0, p1):
    """A positive whose part of the loss depends on all pairs: it is not known yet."""
    return 0.0, 0.0, 0.0
