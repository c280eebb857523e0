"""A against B: ratios with intervals, verdicts, gates. Statistics, no processes."""
