"""Run files, what their lines must hold, and where a number was measured."""
