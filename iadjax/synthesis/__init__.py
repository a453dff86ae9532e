"""Anomaly synthesis on the host, in the input pipeline: NumPy, and every function is given its generator."""
