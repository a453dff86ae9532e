"""HRNet: its tensors against a state dict of Microsoft's code, and what its branches see."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from iadjax import backbones
from iadjax.backbones.hrnet import HRNet
from tests.parity.harness import Card

BRANCHES = tuple(f"branch{i}" for i in range(4))


def test_names_and_shapes_are_those_of_the_authors():
    card, backbone = Card("ikd"), backbones.backbone("hrnet_w18")
    shapes = jax.eval_shape(lambda key: backbone.init(key, BRANCHES), jax.random.key(0))
    ours = {backbone.weight_name(path): leaf.shape for path, leaf in flatten_dict(shapes).items()}
    theirs = card.part("teacher.")
    assert set(ours) == set(theirs)
    assert {name: sorted(shape) for name, shape in ours.items()} == {
        name: sorted(tensor.shape) for name, tensor in theirs.items()
    }


def test_the_paper_counts_as_many_parameters():
    backbone = backbones.backbone("hrnet_w48")
    shapes = jax.eval_shape(lambda key: backbone.init(key, BRANCHES), jax.random.key(0))
    trunk, channels = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])), 48 * 15
    head = channels * channels + 3 * channels + channels * 19 + 19
    # of HRNetV2-W48 with its head for the 19 classes of Cityscapes
    assert round((trunk + head) / 1e6, 1) == 65.9


def test_coarse_maps_are_enlarged_by_the_rule_that_was_asked_for():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    repeated = HRNet(18, False, BRANCHES)._enlarge(x, (4, 6), 2)
    np.testing.assert_array_equal(repeated[0, ..., 0], np.kron(np.arange(6.0).reshape(2, 3), np.ones((2, 2))))
    bilinear = HRNet(18, True, BRANCHES)._enlarge(x, (3, 5), 2)
    np.testing.assert_allclose(bilinear[0, ..., 0], np.arange(0, 3, 0.5)[:5] + np.array([[0], [1.5], [3]]), atol=1e-6)


def test_branches_halve_the_grid():
    backbone = backbones.backbone("hrnet_w18_bilinear")
    variables = jax.eval_shape(lambda key: backbone.init(key, BRANCHES), jax.random.key(0))
    image = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    levels = jax.eval_shape(lambda v, x: backbone.features(v, x, BRANCHES), variables, image)
    assert [level.shape for level in levels] == [(2, 24 >> i, 16 >> i, 18 << i) for i in range(4)]
