"""Anomaly synthesis, one file per method.

Methods for images run on the host, in the input pipeline, in NumPy; each function takes its random generator. Methods for
features run on the device and take a key.
"""
