"""Large and small counts as text: never 0 of some."""

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float) -> str:
    """How many, by thousands (k), millions (M), ... from ten thousand on, to three digits."""
    for unit, name in UNITS:
        if value >= 10 * unit:
            return (
                f"{value / unit:,.1f}{name}" if value < 100 * unit else f"{value / unit:,.0f}{name}"
            )
    return f"{value:,.0f}"


def billions(value: float, decimals: int = 3) -> str:
    """A number of 10^9: some decimals; of less than one, three digits."""
    if value >= 1 or not value:
        return f"{value:,.{decimals if value else 0}f}"
    return f"{value:#.3g}"
