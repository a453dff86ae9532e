"""SuperSimpleNet: names of the authors' tensors ("feature_adaptor.", "discriminator.") and of anomalib's ("segdec.")."""

TABLE = {
    r"(?:adaptor|feature_adaptor)\.projection\.(\w+)": r"adaptor/\1",
    r"(?:segdec|discriminator)\.(?:seg|seg_head)\.(\d)\.(\w+)": r"seg_\1/\2",
    r"(?:segdec|discriminator)\.(?:cls_conv|dec_head)\.(\d)\.(\w+)": r"cls_conv_\1/\2",
    r"(?:segdec|discriminator)\.(?:cls_fc|fc_score)\.(\w+)": r"cls_fc/\1",
    r"feature_extractor\..*": None,
    r"anomaly_map_generator\..*": None,
}
