"""MKD: names of the authors' tensors ("cloner." before the names, or none)."""

TABLE = {
    r"(?:cloner\.)?features\.(\d+)\.(\w+)": r"features_\1/\2",
    # the source network's tensors are the backbone's
    r"source\..*": None,
}
