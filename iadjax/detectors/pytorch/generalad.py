"""GeneralAD: names of the authors' tensors, as "discriminator.transformer_encoder.0.attn.in_proj_weight", and of anomalib's."""

_BLOCK = r"(?:discriminator\.)?transformer_encoder\.(\d+)\."

TABLE = {
    r"(?:discriminator\.)?positional_encodings": r"positional_encodings",
    r"(?:discriminator\.)?output_layer\.(\w+)": r"output_layer/\1",
    rf"{_BLOCK}layer_norm\.(\w+)": r"transformer_encoder_\1/layer_norm/\2",
    rf"{_BLOCK}linear\.(\d)\.(\w+)": r"transformer_encoder_\1/linear_\2/\3",
    rf"{_BLOCK}attn\.(in_proj_\w+)": r"transformer_encoder_\1/attn/\2",
    rf"{_BLOCK}attn\.out_proj\.(\w+)": r"transformer_encoder_\1/attn/out_proj/\2",
    r"feature_extractor\..*": None,
}
