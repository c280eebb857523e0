"""Figures, one file each: ``draw(records)`` returns the matplotlib figure named by the file.

Records of several runs are merged (``reports.records.load``), unless it has a ``read(paths)``.
"""
