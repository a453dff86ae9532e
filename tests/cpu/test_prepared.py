"""Weights of a frozen network that are rounded and transformed once give the features of the original ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

import iadjax
from iadjax import backbones
from iadjax.config import base_config
from iadjax.cpu.dispatch import plain
from iadjax.cpu.prepared import TRANSFORMED, precompute
from iadjax.cpu.winograd import transforms
from iadjax.nn.precision import mixed_precision
from iadjax.parallel.axis import AXIS
from iadjax.parallel.placement import Devices, replicate

LAYERS = ("layer3",)
BACKBONE = backbones.backbone("resnet18")


@pytest.fixture(autouse=True)
def flax_promotion():
    """Flax's modules promote bfloat16 kernels by themselves."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def variables():
    return jax.jit(lambda key: BACKBONE.init(key, LAYERS))(jax.random.key(0))


def program(precision):
    return mixed_precision(lambda _, frozen, image: BACKBONE.features(frozen, image, LAYERS)[0], precision)


# layer3 has 16 x 16 positions there, enough for Winograd's form of its 256 channels
IMAGE = np.random.default_rng(0).random((2, 256, 256, 3), np.float32)


@pytest.mark.parametrize("precision,rounding", [("float32", 1e-5), ("bfloat16", 2**-6)])
def test_features_are_those_of_the_original_weights(variables, precision, rounding):
    ready = precompute({"backbone": variables}, precision)["backbone"]
    forward = jax.jit(program(precision))
    found, truth = forward(None, ready, IMAGE), jax.jit(program("float32"))(None, variables, IMAGE)
    np.testing.assert_allclose(found, truth, rtol=0, atol=rounding * float(np.abs(truth).max()))
    # and do not depend on the batch
    np.testing.assert_array_equal(found[:1], forward(None, ready, IMAGE[:1]))
    # the transformed kernels are what CPUs take
    without = jax.tree.map_with_path(lambda path, x: 0 * x if TRANSFORMED in jax.tree_util.keystr(path) else x, ready)
    assert np.abs(forward(None, without, IMAGE[:1]) - found[:1]).max() > 0.1 * np.abs(found).max()


def test_what_is_added_and_what_is_left(variables):
    ready = flatten_dict(precompute({"backbone": variables}, "float32")["backbone"])
    for path, leaf in flatten_dict(variables).items():
        assert ready.pop(path) is leaf
    kernels = {path: leaf for path, leaf in flatten_dict(variables).items() if path[-1] == "kernel"}
    wide = {path[:-1] for path, kernel in kernels.items() if kernel.shape[0] == 3 and kernel.shape[2] >= 64}
    assert {path[:-1] for path in ready} == wide and len(wide) == 12
    # G g G^T in float64
    _, g, _ = transforms(3)
    for path, found in ready.items():
        assert path[-1] == TRANSFORMED
        truth = np.einsum("ip,jq,pqco->ijco", g, g, np.asarray(kernels[*path[:-1], "kernel"], np.float64))
        np.testing.assert_allclose(np.concatenate(found).reshape(truth.shape), truth, rtol=0, atol=1e-6 * np.abs(truth).max())


def test_kernels_are_rounded_once_in_bfloat16_and_nothing_else_is(variables):
    ready = flatten_dict(precompute({"backbone": variables}, "bfloat16")["backbone"])
    for path, leaf in flatten_dict(variables).items():
        half = path[-1] == "kernel"
        assert ready[path].dtype == (jnp.bfloat16 if half else leaf.dtype)
        np.testing.assert_array_equal(ready[path], leaf.astype(jnp.bfloat16) if half else leaf)


def test_accelerators_take_the_original_kernels(variables):
    ready = precompute({"backbone": variables}, "float32")["backbone"]
    with plain():
        texts = [jax.jit(program("float32")).lower(None, each, IMAGE).as_text() for each in (variables, ready)]
    bodies = [text.split("public @main")[1].split("{", 1)[1].count("stablehlo.convolution") for text in texts]
    assert bodies[0] == bodies[1] > 0


def test_weights_that_both_have_are_on_a_device_once(variables):
    devices = Devices(Mesh(np.array(jax.devices()[:1]), (AXIS,)))
    frozen, ready = (flatten_dict(each) for each in replicate(devices, (variables, precompute(variables, "float32"))))
    assert all(ready[path] is leaf for path, leaf in frozen.items())


@pytest.mark.slow
def test_a_run_trains_on_from_the_original_weights_and_a_loaded_one_scores_the_same(tree, tmp_path):
    config = base_config("devnet", "folder")
    config.data.update({"root": str(tree), "resize": 64, "batch_size": 4})
    config.backbone.update({"name": "resnet18", "weights": "random"})
    config.threshold.holdout = 0.0
    config.protocol.update({"name": "supervised", "num_anomalies": 1})
    config.detector.update({"steps": 2, "train_backbone": True})
    config.precision = "bfloat16"
    run = iadjax.fit(config, tmp_path / "run")
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(run.state)}
    assert jnp.dtype("bfloat16") not in dtypes and TRANSFORMED not in str(jax.tree.structure(run.state))
    assert run.ready["backbone"]["params"]["conv1"]["kernel"].dtype == jnp.bfloat16
    image = np.random.default_rng(1).random((2, 64, 64, 3), np.float32)
    np.testing.assert_array_equal(iadjax.load(tmp_path / "run").predict(image).score, run.predict(image).score)
