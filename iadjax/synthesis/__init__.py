"""Anomaly synthesis, one file per way: of images on the host, in the input pipeline (NumPy, and every function is given its
generator), of features on the device (keyed)."""
