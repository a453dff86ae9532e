"""iadjax: industrial image anomaly detection in JAX."""
