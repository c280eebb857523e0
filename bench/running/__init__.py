"""Where and in what order cases run: sweeps, child processes, torchrun, jobs."""
