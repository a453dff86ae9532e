"""Flax layers that several detectors use."""
