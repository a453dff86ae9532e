"""Forms of operations for XLA:CPU; they know arrays only."""
