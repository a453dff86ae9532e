"""What tests against PyTorch share; `pytest.importorskip("torch")` comes first in each of them."""

import jax
import numpy as np

from iadjax.backbones import weights


def tensors(module) -> dict[str, np.ndarray]:
    """A module's state dict as NumPy arrays."""
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def randomize(module, seed: int = 0) -> None:
    """Random weights, biases and running statistics, so that no tensor can be swapped unseen."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim == 1:
                tensor.add_(0.1 * noise)
            else:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)


def positioned_layer(layer, x, position, memory=None):
    """A `TransformerEncoderLayer`, or with `memory` a decoder's, whose positions join queries and keys alone."""

    def attend(module, query, source):
        return module(query + position, source + position, source, need_weights=False)[0]

    x = layer.norm1(x + attend(layer.self_attn, x, x))
    last = layer.norm2
    if memory is not None:
        x, last = layer.norm2(x + attend(layer.multihead_attn, x, memory)), layer.norm3
    return last(x + layer.linear2(layer.linear1(x).relu()))


def learned_positions(rows, columns):
    """`[h w, 2 d]` of codes of rows `[h, d]` and of columns `[w, d]`, the columns' first."""
    import torch

    shape = (len(rows), len(columns), rows.shape[1])
    return torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], -1).flatten(0, 1)


def features(backbone, variables, image, layers):
    """`Backbone.features` as one program: call by call, every operation would be compiled on its own."""
    return jax.jit(backbone.features, static_argnums=2)(variables, image, tuple(layers))


def to_torch(x):
    """`[B, H, W, C]` to a torch tensor `[B, C, H, W]`."""
    import torch

    return torch.from_numpy(np.array(x, np.float32).transpose(0, 3, 1, 2).copy())


def from_torch(x) -> np.ndarray:
    """A torch tensor `[B, C, H, W]` to `[B, H, W, C]`."""
    return x.detach().numpy().transpose(0, 2, 3, 1)


def assert_close(ours, theirs, tolerance: float) -> None:
    """Largest difference, relative to the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max()
    assert scale > 0
    assert np.abs(ours - theirs).max() <= tolerance * scale, np.abs(ours - theirs).max() / scale


def assert_gradients_close(params, module, tolerance: float = 1e-3, **options) -> None:
    """Compares a tree of gradients with those of a torch module after `backward`, tensor by tensor."""
    theirs = {name: parameter.grad.numpy() for name, parameter in module.named_parameters() if parameter.grad is not None}
    expected = weights.fill({"params": params}, theirs, **options)["params"]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    compared = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (jax.tree_util.keystr(path), float(np.abs(a - b).max()), float(np.abs(b).max())), params, expected
    )
    for path, difference, scale in jax.tree.leaves(compared, is_leaf=lambda leaf: isinstance(leaf, tuple)):
        # a gradient that is zero in exact arithmetic (a bias before a norm) is rounding on both sides
        assert difference <= tolerance * max(scale, 1e-3 * largest), (path, difference, scale)
