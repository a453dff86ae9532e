"""FRE: names of anomalib's tensors."""

from iadjax.backbones.weights import fill_by_table, torch_layout

TABLE = {
    r"fre_model\.(weight|encoder_bias|decoder_bias)": r"\1",
    r"feature_extractor\..*": None,
}


def from_torch(tensors, state):
    """The tensors of flattened features `[C, h, w]` become those of `[h, w, C]`."""
    height, width, depth, latent = state.variables["params"]["weight"].shape

    def layout(path, tensor):
        if path[-1] == "weight" and tensor.shape == (latent, depth * height * width):
            return tensor.reshape(latent, depth, height, width).transpose(2, 3, 1, 0)
        if path[-1] == "decoder_bias" and tensor.size == depth * height * width:
            return tensor.reshape(depth, height, width).transpose(1, 2, 0)
        return torch_layout(path, tensor)

    return state._replace(variables=fill_by_table(state.variables, tensors, TABLE, layout))
