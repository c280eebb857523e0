"""One measurement: time, memory, energy and accuracy of calls in this process."""
