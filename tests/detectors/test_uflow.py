"""U-Flow: its flow against autodiff, numbers of false alarms against a plain search, the rule, and refusals."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import iadjax
from iadjax import metrics, ops
from iadjax.config import load_config
from iadjax.detectors.distribution.uflow import Flow, enlarged, shrunk, uflow
from iadjax.detectors.memory_bank import patchcore
from iadjax.errors import UserError
from tests.detectors.test_contract import config_of
from tests.direct import predict, spec_for
from tests.parity import harness
from tests.tiny import tiny_networks


def test_flow_is_invertible_and_its_log_determinant_is_autodiffs():
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 2, 3), (2, 2, 1, 12))]
    # of 12 channels 4 go up as one, and 8 are latent
    flow = Flow((3, 12), 1, 1.0, 2.0)
    variables = jax.jit(flow.init)(jax.random.key(0), levels)
    noise = lambda x: 0.3 * rng.standard_normal(x.shape).astype(np.float32)  # noqa: E731
    variables = {**variables, "params": jax.tree.map(lambda x: x + noise(x), variables["params"])}

    def flat(x):
        z, log_det = flow.apply(variables, [x[:24].reshape(1, 4, 2, 3), x[24:].reshape(1, 2, 1, 12)])
        return jnp.concatenate([each.ravel() for each in z]), log_det[0]

    @jax.jit
    def everything(levels):
        z, log_det = flow.apply(variables, levels)
        jacobian, _ = jax.jacfwd(flat, has_aux=True)(jnp.concatenate([level[0].ravel() for level in levels]))
        return z, log_det, flow.apply(variables, z, inverse=True), jacobian

    z, log_det, (again, back), jacobian = everything(levels)
    assert [each.shape[1:] for each in z] == [(4, 2, 4), (2, 1, 8)]
    for x, y in zip(levels, again, strict=True):
        np.testing.assert_allclose(y, x, atol=1e-4)
    np.testing.assert_allclose(back, -np.asarray(log_det), rtol=1e-4)
    assert np.linalg.slogdet(np.asarray(jacobian, np.float64))[1] == pytest.approx(float(log_det[0]), rel=1e-4)
    assert abs(float(log_det[1] - log_det[0])) > 1e-2


def test_four_channels_become_a_block():
    x = jnp.arange(16.0).reshape(1, 1, 2, 8)
    y = enlarged(x)
    # PyTorch's pixel_shuffle
    np.testing.assert_array_equal(y[0, ..., 0], [[0, 1, 8, 9], [2, 3, 10, 11]])
    np.testing.assert_array_equal(shrunk(y), x)


def searched(u, degrees):
    """Region by region: the tree of components of all levels, and the rule from its leaves downwards, in float64."""
    ratio = np.maximum(u / degrees, 1)
    log_p = -degrees / 2 * (ratio - 1 - np.log(ratio)) / np.log(10)
    nodes = []
    for level in sorted({value for value in u.ravel() if value > degrees}, reverse=True):
        labels, number = ndimage.label(u >= level)
        for k in range(1, number + 1):
            region = labels == k
            if region[u == level].any():
                inside = [node for node in nodes if node["top"] and (node["region"] & region).any()]
                for node in inside:
                    node["top"] = False
                value = region.sum() * log_p[u == level][0]
                chosen = [pair for node in inside for pair in node["chosen"]]
                single = all(node["single"] for node in inside)
                stays = single and all(value <= other for other, _ in chosen)
                nodes.append(
                    {
                        "region": region,
                        "top": True,
                        "single": stays or (single and len(inside) < 2),
                        "chosen": [(value, region)] if stays else chosen,
                    }
                )
    found = np.zeros(u.shape)
    for node in nodes:
        if node["top"]:
            for value, region in node["chosen"]:
                found[region] = value
    return found


@pytest.mark.parametrize("degrees", [1, 8])
def test_most_meaningful_regions_are_those_of_a_plain_search(degrees):
    rng = np.random.default_rng(degrees)
    u = np.square(rng.standard_normal((4, 9, 7, degrees))).sum(-1)
    # images of which one has a bright disc, one two of them that touch
    u[1, 2:6, 2:5] *= 4
    u[2, 1:4, 1:3] *= 5
    u[2, 4:7, 2:5] *= 3
    ours = jax.jit(ops.region_log10_probability, static_argnums=1)(u.astype(np.float32), degrees)
    wanted = np.stack([searched(each.astype(np.float32).astype(np.float64), degrees) for each in u])
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)
    assert ours[1].min() < ours[0].min() and len(np.unique(ours[2])) > 2


def test_what_is_below_its_expectation_is_not_meaningful():
    # the authors' bound gives these regions probabilities as small as those of bright ones
    u = np.full((1, 6, 6), 0.5 * 16, np.float32)
    u[0, 2, 2] = 0.9 * 16
    assert np.all(np.asarray(jax.jit(ops.region_log10_probability, static_argnums=1)(u, 16)) == 0)


def test_number_of_tests_on_paper():
    # two positions: 2 (a b + a b^2 / 2); one: a b
    a, b = 0.316915, 4.062570
    assert ops.log10_region_tests((2, 1)) == pytest.approx(np.log10(2 * (a * b + a * b**2 / 2) + a * b), rel=1e-9)
    # no overflow where the number has thousands of digits
    assert 7600 < ops.log10_region_tests((112 * 112,)) < 7700


def test_scores_are_numbers_of_false_alarms():
    """With a flow that permutes, u is the squared norm of the features."""
    features = np.random.default_rng(0).standard_normal((2, 4, 4, 16)).astype(np.float32)
    features[1, 1:3, 1:3] *= 4
    backbone, frozen = harness.given([features])
    detector = uflow(backbone, layers=backbone.layers, layer_norm=False, flow_steps=1, scores="nfa")
    spec = spec_for(detector, frozen, 2, (4, 4, 3))
    state = jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(0))
    zero = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if "subnet_2" in str(path) else x, state.variables
    )
    found = predict(detector, state._replace(variables=zero), frozen, np.zeros((2, 4, 4, 3), np.float32))
    u = np.square(features.astype(np.float64)).sum(-1)
    wanted = -np.stack([searched(each.astype(np.float32), 16) for each in u]) - ops.log10_region_tests((16,))
    np.testing.assert_allclose(found.map, wanted, rtol=1e-3, atol=1e-3)
    assert found.score[0] < 0 < found.score[1]


def test_the_rule_needs_no_images_and_other_detectors_are_refused(tree, tmp_path, monkeypatch):
    with tiny_networks():
        config = config_of("patchcore", tree)
        config.threshold.update({"name": "a_contrario", "false_alarms": 0.01, "holdout": 0.0})
        with pytest.raises(UserError, match="a_contrario is for scores that are numbers of false alarms"):
            iadjax.fit(config, tmp_path / "other")

        @functools.wraps(patchcore.patchcore)
        def counting(*networks, **options):
            return plain(*networks, **options)._replace(false_alarms=True)

        plain = patchcore.patchcore
        monkeypatch.setattr(patchcore, "patchcore", counting)
        run = iadjax.fit(config, tmp_path / "run")
        stored = json.loads((tmp_path / "run/threshold.json").read_text())
        assert stored == run.threshold
        assert stored["value"] == stored["pixel_value"] == pytest.approx(2) and stored["images"] == 0
        assert iadjax.evaluate(run, output=tmp_path / "run", speed=False)["mean"]["threshold"]["value"] == stored["value"]


def test_the_rule():
    assert metrics.fit_threshold("a_contrario", []) == 0
    assert metrics.fit_threshold("a_contrario", [1.0, 5.0], false_alarms=1e-3) == pytest.approx(3)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="false_alarms must be"):
            metrics.fit_threshold("a_contrario", [], false_alarms=wrong)


def test_refusals():
    backbone, frozen = harness.given([np.zeros((2, 4, 4, 2)), np.zeros((2, 4, 4, 2))])
    detector = uflow(backbone, layers=backbone.layers)
    with pytest.raises(UserError, match="grids that halve from level to level"):
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 4, (8, 8, 3)))
    with pytest.raises(UserError, match="'likelihood' or 'nfa'"):
        uflow(backbone, layers=backbone.layers, scores="tree")
    with pytest.raises(UserError, match=r"final_rate must be in \(0, 1\]"):
        uflow(backbone, layers=backbone.layers, final_rate=0.0)
    assert load_config("unsupervised/uflow.py:mvtec_ad").data.resize == 448
