"""Exact counts of a case, from its operations followed without running them."""
