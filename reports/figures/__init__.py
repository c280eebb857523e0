"""Figures, one file each: ``draw(records)`` returns the matplotlib figure named by the file."""
