"""FoundAD: names of the authors' tensors, as "predictor_blocks.0.attn.qkv.weight", and of anomalib's ("projector.")."""

TABLE = {
    r"(?:predictor\.|projector\.)?predictor_blocks\.(\d+)\.(norm\d)\.(\w+)": r"predictor_blocks_\1/\2/\3",
    r"(?:predictor\.|projector\.)?predictor_blocks\.(\d+)\.(attn|mlp)\.(\w+)\.(\w+)": r"predictor_blocks_\1/\2/\3/\4",
    r"(?:predictor\.|projector\.)?predictor_(embed|norm|proj)\.(\w+)": r"predictor_\1/\2",
    r"(?:predictor\.|projector\.)?predictor_pos_embed": r"predictor_pos_embed",
    # never used, the backbone's, and a constant
    r"(?:predictor\.)?mask_token|encoder\..*|gaussian_blur\..*": None,
}
