"""What people call: commands, their options and output, and the same as functions."""
