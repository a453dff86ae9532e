"""Data sets as ArrayRecord files of TensorFlow Datasets: writing them and reading them back."""
