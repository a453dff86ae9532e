"""SSPCAB and SSMCTB: the authors' blocks, losses and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import losses
from iadjax.backbones.weights import fill_by_table, position
from iadjax.nn.masked_convolution import MaskedBlock
from tests.parity.harness import Card, close, nchw, report

TABLE = {
    r"(conv\d)\.(\w+)": r"\1/\2",
    r"se\.(fc\d)\.(\w+)": r"se_\1/\2",
    r"transformer\.pos_embedding": "pos_embedding",
    r"transformer\.projection\.(\w+)": r"projection/\1",
    r"transformer\.mha\.to_qkv\.(\w+)": r"to_qkv/\1",
    r"transformer\.mha\.to_out\.0\.(\w+)": r"to_out/\1",
}


@pytest.mark.parametrize("kind", ["sspcab", "ssmctb"])
@pytest.mark.parametrize(("part", "kernel", "dilation"), [("a", 1, 1), ("b", 3, 2)])
def test_authors(kind, part, kernel, dilation):
    card = Card(kind)
    x = jnp.asarray(card["input/features"].transpose(0, 2, 3, 1))
    block = MaskedBlock(kind, kernel, dilation)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = fill_by_table(shapes, card.part(f"{part}."), TABLE)

    def loss(params):
        y = block.apply({"params": params}, x)
        return jnp.mean(losses.mse(y, x)), y

    (value, y), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    card.check(f"output_{part}", nchw(y))
    close(value, card[f"loss_{part}"], what="loss")
    leaves = {("params", *path): leaf for path, leaf in _flat(gradients)}
    names = [name for name in card.arrays if name.startswith(f"grad/{part}.")]
    assert names
    for name in names:
        ours = np.asarray(leaves[position(name.removeprefix(f"grad/{part}."), TABLE, leaves)], np.float64)
        total, norm = card.arrays[name]
        if norm == 0:
            # the hidden units of the excitation are all off
            assert not np.any(ours)
            continue
        report(name, abs(np.linalg.norm(ours) - norm) / norm, 1e-3)
        report(f"{name} sum", abs(ours.sum() - total) / (norm * ours.size**0.5), 1e-3)


def _flat(tree, path=()):
    for name, part in tree.items():
        yield from _flat(part, (*path, name)) if isinstance(part, dict) else [((*path, name), part)]
