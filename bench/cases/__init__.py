"""What is counted, predicted or measured: cases, their inputs, suites of them, losses of others."""
