"""What holds for every detector: one parametrised test file, and a row for each detector."""

import contextlib
import json
import os
import signal

import jax
import numpy as np
import pytest

import iadjax
from iadjax import detectors
from iadjax.config import base_config
from iadjax.cpu.dispatch import plain
from iadjax.experiment.fit import Stopped
from iadjax.experiment.log import Log
from tests.conftest import draw_tree, drop_compiled_functions
from tests.direct import batch_of

# the smallest setting that goes through every branch of a detector, on 5 + 1 images in batches of 2
CASES = {
    "anomalydino": {
        "protocol.name": "few_shot",
        "protocol.num_shots": 3,
        "detector.layers": ("layer2",),
        "detector.rotations": 4,
    },
    "devnet": {"protocol.name": "supervised", "protocol.num_anomalies": 1, "detector.layers": ("layer1",), "detector.steps": 5},
    "draem": {"detector.width": 4, "detector.segment_width": 4, "detector.epochs": 2},
    "efficientad": {
        "backbone.name": "pdn_small",
        "backbone.weights": "random",
        "data.resize": 128,
        "detector.steps": 3,
    },
    "fastflow": {"detector.epochs": 2, "detector.flow_steps": 2},
    "padim": {"detector.num_channels": 20},
    "patchcore": {"detector.layers": ("layer1", "layer2"), "detector.coreset_ratio": 0.2},
    "rd4ad": {"detector.epochs": 2},
    "simplenet": {
        "detector.epochs": 2,
        "detector.pretrain_dimension": 24,
        "detector.target_dimension": 16,
        "detector.hidden": 16,
    },
    "uniad": {
        "detector.stride": 8,
        "detector.hidden": 16,
        "detector.heads": 2,
        "detector.width": 16,
        "detector.neighbor_size": 3,
        "detector.epochs": 2,
        "detector.num_encoder_layers": 1,
        "detector.num_decoder_layers": 1,
    },
}


def test_every_detector_has_a_row():
    assert set(CASES) == set(detectors.MODULES)


def config_of(name, tree):
    config = base_config(name, "folder")
    config.data.update({"root": str(tree), "resize": 64, "batch_size": 2, "workers": 2})
    config.threshold.holdout = 0.2
    for key, value in CASES[name].items():
        section, option = key.split(".")
        config[section][option] = value
    return config


# half of whose time goes into compiling Winograd's form, which tests/nn/test_convolution.py holds to the same
PLAIN = {"efficientad"}


@pytest.fixture(scope="module", params=sorted(CASES))
def forms(request):
    """The name of a detector, whose programs have convolutions in the fast forms or, for those in `PLAIN`, in XLA's own."""
    with plain() if request.param in PLAIN else contextlib.nullcontext():
        yield request.param
    # before the next detector comes
    drop_compiled_functions()


@pytest.fixture(scope="module")
def fitted(forms, tmp_path_factory):
    """The name, a run, and one without the feature cache that was stopped in the middle of its first epoch and resumed."""
    root = tmp_path_factory.mktemp(forms)
    config = config_of(forms, draw_tree(root))
    whole = iadjax.fit(config, root / "whole")
    write = Log.write

    def stop(self, step, *rest):
        write(self, step, *rest)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    config.data.feature_cache_bytes = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "write", stop)
        with pytest.raises(Stopped, match="step 2"):
            iadjax.fit(config, root / "parts")
    parts = iadjax.fit(config, root / "parts", resume=True)
    return forms, whole, parts


def images(run, count=5, seed=0):
    size = run.config["data"]["resize"]
    return np.random.default_rng(seed).random((count, size, size, 3), np.float32)


def equal(a, b):
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(leaves) == len(others) and all(np.array_equal(x, y) for x, y in zip(leaves, others, strict=True))


def test_same_seed_same_state_also_after_a_stop_and_without_the_feature_cache(fitted):
    _, whole, parts = fitted
    assert equal(whole.state, parts.state)
    assert whole.threshold == parts.threshold
    assert equal(whole.predict_batch(images(whole)), parts.predict_batch(images(whole)))


def test_scores_do_not_depend_on_the_batch(fitted):
    _, run, _ = fitted
    batch = images(run)
    together = run.predict_batch(batch)
    assert together.score.shape == (5,) and together.map.shape == batch.shape[:3]
    assert together.score.dtype == together.map.dtype == np.float32
    assert np.all(np.isfinite(together.score)) and np.all(np.isfinite(together.map))
    assert np.ptp(together.score) > 0
    turned = run.predict_batch(batch[::-1])
    np.testing.assert_allclose(turned.score[::-1], together.score, rtol=2e-5, atol=1e-6)
    for i in (0, 3):
        alone = run.predict_batch(batch[i : i + 1])
        scale = np.abs(together.map).max()
        np.testing.assert_allclose(alone.score[0], together.score[i], rtol=2e-5, atol=2e-5 * scale)
        np.testing.assert_allclose(alone.map[0], together.map[i], atol=5e-5 * scale)


def test_state_is_exported_whole(fitted):
    _, run, _ = fitted
    loaded = iadjax.load(run.workdir)
    assert equal(run.state, loaded.state) and loaded.threshold == run.threshold
    assert equal(run.predict_batch(images(run)), loaded.predict_batch(images(run)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(run.state))


def test_every_function_is_compiled_once(fitted):
    _, run, _ = fitted
    compiled = json.loads((run.workdir / "run.json").read_text())["compilations"]["programs"]
    phases = [phase.name.replace(" ", "_") for phase in run.detector.phases(run.spec)]
    assert {name: number for name, number in compiled.items() if name.startswith("update")} == {
        f"update_{name}": 1 for name in phases
    }


def test_padded_rows_do_not_matter(fitted):
    _, run, _ = fitted
    state = jax.jit(run.detector.init, static_argnums=2)(jax.random.key(3), run.frozen, run.spec)
    for number, phase in enumerate(run.detector.phases(run.spec)):
        rows = images(run, 3)
        extra = {}
        if phase.augment:
            drawn = [phase.augment(np.random.default_rng(i), row, lambda row=row: row) for i, row in enumerate(rows)]
            extra = {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
        given = {"label": [0, 1, 0] if phase.anomaly_fraction else None, "valid": [True, True, False]}
        batch = batch_of(run.detector, run.frozen, rows, extra=extra, **given)
        garbage = rows.copy()
        garbage[2] = 0.9
        spoiled = {name: value.copy() for name, value in extra.items()}
        for value in spoiled.values():
            value[2] = 1 - value[2]
        other = batch_of(run.detector, run.frozen, garbage, extra=spoiled, **given)
        key = jax.random.key(number)
        update = jax.jit(phase.update)
        one, info = update(key, state, run.frozen, batch)
        two, _ = update(key, state, run.frozen, other)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert all(np.shape(value) == () for value in info.values())
        state = phase.finalize(key, one, run.frozen)


def test_options_are_documented(fitted):
    name, _, _ = fitted
    text = detectors.factory(name).__doc__
    missing = [option for option in detectors.options(name) if option not in text]
    assert not missing and "Raises:" in text and "    Map: " in text
