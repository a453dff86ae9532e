"""Families of detectors, so that a detector's own file holds only its mathematics."""
