"""Swin blocks: torchvision's, with windows that are completed and shifted."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from iadjax.backbones.weights import fill_by_table, position
from iadjax.nn.swin import SwinEncoder
from tests.parity.harness import Card, close, fill, report

TABLE = {
    r"features\.0\.(\d)\.(\w+)": r"features_0_\1/\2",
    r"features\.(\d)\.(\d)\.(norm\d)\.(\w+)": r"features_\1_\2/\3/\4",
    r"features\.(\d)\.(\d)\.attn\.relative_position_bias_table": r"features_\1_\2/attn/relative_position_bias_table",
    r"features\.(\d)\.(\d)\.attn\.(qkv|proj)\.(\w+)": r"features_\1_\2/attn/\3/\4",
    r"features\.(\d)\.(\d)\.mlp\.(\d)\.(\w+)": r"features_\1_\2/mlp_\3/\4",
    r"features\.(\d)\.(norm|reduction)\.(\w+)": r"features_\1/\2/\3",
}


def test_torchvision():
    card = Card("torchvision_swin")
    image, network = jnp.asarray(card["image"]), SwinEncoder(16, (2, 2), (2, 4), 4)
    variables = fill_by_table(jax.eval_shape(network.init, jax.random.key(0), image), card.tensors, TABLE)
    weight = fill("weight_of_output", tuple(card.about["outputs"]["stage2"]["shape"]), card.about["salt"])

    def loss(params):
        inputs, y = network.apply({"params": params}, image)
        return jnp.sum(weight * y), (inputs, y)

    (value, (inputs, y)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    card.check("stage2", y)
    close(value, card["loss"], what="loss")
    assert [x.shape for x in inputs] == [(2, 10, 11, 16), (2, 5, 6, 32)]
    leaves = flatten_dict({"params": gradients})
    names = [name for name in card.arrays if name.startswith("grad/")]
    assert len(names) == 6
    for name in names:
        ours = np.asarray(leaves[position(name.removeprefix("grad/"), TABLE, leaves)], np.float64)
        total, norm = card.arrays[name]
        report(name, abs(np.linalg.norm(ours) - norm) / norm, 1e-3)
        report(f"{name} sum", abs(ours.sum() - total) / (norm * ours.size**0.5), 1e-3)
