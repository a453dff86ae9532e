"""RD4AD: names of the authors' tensors ("bn." and "decoder." before the names) and of anomalib's ("bottleneck.")."""

TABLE = {
    r"(?:bn|bottleneck)\.bn_layer\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"bn/bn_layer_\1/\2/\3",
    r"(?:bn|bottleneck)\.bn_layer\.(\d+)\.downsample\.(\d)\.(\w+)": r"bn/bn_layer_\1/downsample_\2/\3",
    r"(?:bn|bottleneck)\.(conv[1-3]|bn[1-3])\.(\w+)": r"bn/\1/\2",
    r"decoder\.layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"decoder/layer\1_\2/\3/\4",
    r"decoder\.layer(\d)\.(\d+)\.upsample\.(\d)\.(\w+)": r"decoder/layer\1_\2/upsample_\3/\4",
    # never used in the authors' code
    r"(?:bn|bottleneck)\.(conv4|bn4)\..*": None,
    # the teacher's tensors are the backbone's
    r"(feature_extractor|encoder)\..*": None,
}
