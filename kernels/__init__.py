"""Triton kernels. Nothing is here yet: they register themselves as an implementation of a loss."""
