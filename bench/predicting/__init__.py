"""What a case should take on a device: ceilings, datasheets, links, compiled kernels."""
