"""Flax layers that several detectors share."""
