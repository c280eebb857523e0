"""Self-supervised pretraining, timed phase by phase."""
