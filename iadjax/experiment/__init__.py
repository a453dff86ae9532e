"""Fitting, predicting and evaluating: everything around a detector that a run is made of."""
