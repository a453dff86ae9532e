"""SimpleNet: names of tensors in other libraries."""

from iadjax.backbones import weights
from iadjax.detector import State

__all__ = ["from_torch"]


def from_torch(tensors, state: State) -> State:
    """The state with the tensors of the authors' code ("pre_projection." and "discriminator." before the names)."""
    trees = {"params": state.variables["params"], "batch_stats": {"discriminator": state.variables["batch_stats"]}}

    def name(path):
        torch = weights.torch_name(path).replace("adaptor.", "pre_projection.", 1)
        return torch.replace("layers_0fc", "layers.0fc").replace("body_block1", "body.block1")

    filled = weights.fill(trees, tensors, name)
    variables = {"params": filled["params"], "batch_stats": filled["batch_stats"]["discriminator"]}
    return state._replace(variables=variables)
