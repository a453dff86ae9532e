"""UniAD: names of tensors in other libraries."""

from iadjax.backbones import weights
from iadjax.detector import State

__all__ = ["from_torch"]


def from_torch(tensors, state: State) -> State:
    """The state with the tensors of the authors' code (names as "transformer.encoder.layers.0.self_attn.in_proj_weight")."""

    def name(path):
        torch = weights.torch_name(path)
        for ours, theirs in (("transformer_", "transformer."), ("encoder_", "encoder."), ("decoder_", "decoder.")):
            torch = torch.replace(ours, theirs)
        for part in ("learned_embed", "row_embed", "col_embed"):
            torch = torch.replace(f"{part}_weight", f"{part}.weight")
        return torch.replace("pos_embed_", "pos_embed.")

    renamed = {key.removeprefix("module.").removeprefix("reconstruction."): tensor for key, tensor in tensors.items()}
    return state._replace(variables=weights.fill(state.variables, renamed, name, ignored=r"backbone\..*|neck\..*"))
