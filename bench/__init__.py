"""Cases to records: what is counted, predicted and measured, in rooms that import one way."""

ROOMS = (
    "records",
    "cases",
    "counting",
    "measuring",
    "predicting",
    "comparing",
    "running",
    "pretraining",
    "interface",
)
"""From the ground up: each imports only those before it."""
