"""What the ensemble decides, written once: no clock, no tensors, no I/O, no randomness of its own."""
