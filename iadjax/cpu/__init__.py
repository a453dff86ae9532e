"""Implementations of operations for XLA:CPU. They take arrays and import nothing of detectors or data."""
