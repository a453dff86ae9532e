"""UniAD: names of the authors' tensors, as "module.reconstruction.transformer.encoder.layers.0.linear1.weight"."""

_LAYER = r"(?:reconstruction\.)?transformer\.(encoder|decoder)\.layers\.(\d+)\."

TABLE = {
    rf"{_LAYER}(linear\d|norm\d)\.(\w+)": r"transformer_\1_layers_\2/\3/\4",
    rf"{_LAYER}(self_attn|multihead_attn)\.(in_proj_\w+)": r"transformer_\1_layers_\2/\3/\4",
    rf"{_LAYER}(self_attn|multihead_attn)\.out_proj\.(\w+)": r"transformer_\1_layers_\2/\3/out_proj/\4",
    rf"{_LAYER}learned_embed\.weight": r"transformer_\1_layers_\2/learned_embed_weight",
    r"(?:reconstruction\.)?transformer\.decoder\.norm\.(\w+)": r"transformer_decoder_norm/\1",
    r"(?:reconstruction\.)?pos_embed\.(row|col)_embed\.weight": r"pos_embed_\1_embed_weight",
    r"(?:reconstruction\.)?(input_proj|output_proj)\.(\w+)": r"\1/\2",
    # frozen networks
    r"(backbone|neck)\..*": None,
}
