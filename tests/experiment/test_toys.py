"""What the contract can say, each by a detector of a few lines (tests/toys.py)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iadjax
from iadjax import detectors
from iadjax.config import base_config
from iadjax.errors import UserError
from iadjax.experiment.merge import merge
from iadjax.export import export, load_exported
from tests import toys


@pytest.fixture(autouse=True)
def known(monkeypatch):
    for name in toys.NAMES:
        monkeypatch.setitem(detectors.MODULES, name, "tests.toys")


def config_of(name, tree, **keys):
    config = base_config(name, "folder")
    config.data.update({"root": str(tree), "resize": 16, "batch_size": 2, "workers": 0})
    config.threshold.holdout = 0.2
    for key, value in keys.items():
        section, option = key.split("__")
        config[section][option] = value
    return config


def images(number=3, size=16):
    return np.random.default_rng(0).random((number, size, size, 3), np.float32)


def same(a, b):
    """Whether two trees hold equal arrays, typed keys among them."""

    def plain(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return all(np.array_equal(plain(x), plain(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_detector_without_a_backbone_has_none(tree):
    assert "backbone" not in config_of("image_only", tree) and "networks" not in config_of("image_only", tree)
    config = config_of("image_only", tree).to_dict()
    with pytest.raises(UserError, match="no key 'backbone'"):
        iadjax.config.resolve({**config, "backbone": {"name": "filter_bank", "weights": ""}})


def test_an_image_score_alone(tree, tmp_path):
    run = iadjax.fit(config_of("image_only", tree), tmp_path / "run")
    assert run.predict(images()).map is None and run.weights == {}
    table = iadjax.evaluate(run, output=tmp_path / "run")
    assert np.isfinite(table["mean"]["image_auroc"]) and np.isnan(table["mean"]["pixel_auroc"])
    assert json.loads((tmp_path / "run/metrics.json").read_text())["mean"]["aupro"] is None
    page = (tmp_path / "run/report/index.html").read_text()
    assert "-image.jpg" in page and "-map.jpg" not in page
    iadjax.predict_files(run, tree / "test", tmp_path / "out")
    assert (tmp_path / "out/scores.csv").is_file() and not (tmp_path / "out/overlays").exists()
    exported = load_exported(export(run, tmp_path / "export"))
    np.testing.assert_allclose(exported.predict(images()).score, run.predict(images()).score, rtol=1e-5)
    run.config["evaluate"]["save_maps"] = True
    with pytest.raises(UserError, match="does not localise"):
        iadjax.evaluate(run, output=tmp_path / "run")


def test_two_optimisers_in_one_update(tree, tmp_path):
    run = iadjax.fit(config_of("adversarial", tree), tmp_path / "run")
    assert same(run.state, iadjax.load(tmp_path / "run").state)
    assert int(run.state.generator.optimizer[0].count) == int(run.state.critic.optimizer[0].count) == 9
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"generator", "critic"} <= lines[-1].keys() and lines[-1]["generator"] < lines[0]["generator"]


def test_a_sampler_denoises_in_predict_and_its_typed_key_survives(tree, tmp_path):
    run = iadjax.fit(config_of("sampler", tree), tmp_path / "run")
    loaded = iadjax.load(tmp_path / "run")
    assert jax.dtypes.issubdtype(loaded.state.key.dtype, jax.dtypes.prng_key) and same(run.state, loaded.state)
    together = run.predict_batch(images())
    alone = loaded.predict_batch(images()[1:2])
    np.testing.assert_allclose(alone.map[0], together.map[1], rtol=1e-6)
    path = export(run, tmp_path / "export")
    assert load_exported(path).predict(images()).map.shape == (3, 16, 16)
    assert b"while" in path.read_bytes()


def test_batches_of_one_category(tmp_path):
    config = base_config("pairs", "synthetic")
    config.data.update({"category": "washer,wood", "resize": 16, "batch_size": 16, "workers": 2})
    run = iadjax.fit(config, tmp_path / "run")
    sums, counts, mixed = map(np.asarray, run.state)
    assert not mixed and counts.sum() == len(run.data.split.train)
    for number, name in enumerate(run.data.dataset.categories):
        items = [item for item in run.data.split.train if item.category == name]
        read = [run.transform.image(run.data.dataset.read(item)[0]).mean(axis=(0, 1)) for item in items]
        assert counts[number] == len(items)
        # the partner is another image, so that the mean of pairs is near that of the images, and not equal to it
        difference = np.abs(sums[number] / counts[number] - np.mean(read, axis=0)).max()
        assert 1e-6 < difference < 0.05


def test_a_warm_start_skips_a_phase(tree, tmp_path):
    config = config_of("warm", tree)
    first = iadjax.fit(config, tmp_path / "first")
    second = iadjax.fit(config, tmp_path / "second", start=first)

    def phases(name):
        return {json.loads(line)["phase"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()}

    assert phases("first") == {"pretrain"} and phases("second") == {"adapt"}
    for run in (first, second):
        assert same(run.state, iadjax.load(run.workdir).state)


def test_an_input_that_the_host_prepares(tree, tmp_path):
    run = iadjax.fit(config_of("prepared", tree), tmp_path / "run")
    bright = [(run.transform.image(run.data.dataset.read(item)[0]).mean(-1) > 0.5).mean() for item in run.data.split.train]
    np.testing.assert_allclose(run.state[1] / run.state[0], np.mean(bright), rtol=1e-6)
    batch = images()
    truth = np.abs((batch.mean(-1) > 0.5).mean(axis=(1, 2)) - np.mean(bright))
    np.testing.assert_allclose(run.predict(batch).score, truth, atol=1e-6)
    made = {item.path: score for item, score, _ in run.predict_items(run.data.split.test)}
    assert len(made) == len(run.data.split.test)
    with pytest.raises(UserError, match="takes images alone"):
        export(run, tmp_path / "export")


def test_a_bank_with_weights(tree, tmp_path):
    run = iadjax.fit(config_of("weighted", tree), tmp_path / "run")
    state = iadjax.load(tmp_path / "run").state
    assert same(run.state, state)
    rows = int(state.rows)
    origin, weights = np.asarray(state.origin)[:rows], np.asarray(state.weights)[:rows]
    np.testing.assert_array_equal(weights, 1 + origin[:, 1] % 3)
    assert set(origin[:, 0]) == set(range(len(run.data.split.train))) and set(origin[:, 2]) == {0}
    image = images(1)
    queries = image[0, ::4, ::4].reshape(-1, 3)
    distance = np.linalg.norm(queries[:, None] - np.asarray(state.features)[None, :rows], axis=-1)
    truth = (distance.min(axis=1) * weights[distance.argmin(axis=1)]).max()
    np.testing.assert_allclose(run.predict(image).score, truth, rtol=1e-5)


def test_two_sites_merge_into_what_one_site_with_all_images_has(tmp_path):
    config = base_config("image_only", "synthetic")
    config.data.update({"resize": 16, "batch_size": 16, "workers": 2})
    runs = []
    for name in ("washer", "wood", "washer,wood"):
        config.data.category = name
        config.threshold.holdout = 0.0
        runs.append(iadjax.fit(config, tmp_path / name.replace(",", "+")))
    one = merge(runs[:2], tmp_path / "merged")
    np.testing.assert_allclose(one.state[1], runs[2].state[1], rtol=1e-5)
    assert same(one.state, iadjax.load(tmp_path / "merged").state) and one.threshold is None
    with pytest.raises(UserError, match="as many weights"):
        merge(runs[:2], tmp_path / "other", weights=[1.0])


def test_trained_states_and_banks_of_sites_merge():
    from iadjax.detectors.families.bank import Memory, merge_memories
    from iadjax.detectors.families.gradient import Trained, mean_variables

    states = [Trained({"params": {"w": jnp.full(3, value)}}, ()) for value in (1.0, 5.0)]
    np.testing.assert_allclose(mean_variables(states, np.array([0.75, 0.25])).variables["params"]["w"], 2.0)
    banks = []
    for start, rows in ((0, 2), (10, 3)):
        features = jnp.arange(start, start + 4, dtype=jnp.float32)[:, None] * jnp.ones((1, 2))
        origin = jnp.full((4, 3), start, jnp.int32)
        banks.append(Memory(features, jnp.ones(4), origin, jnp.int32(rows), jnp.int32(1), jnp.int32(rows)))
    merged = merge_memories(banks, np.array([0.5, 0.5]))
    assert int(merged.rows) == 5 and int(merged.count) == 2
    np.testing.assert_array_equal(np.asarray(merged.features)[:5, 0], [0, 1, 10, 11, 12])
    np.testing.assert_array_equal(np.asarray(merged.origin)[:5, 0], [0, 0, 10, 10, 10])


def test_a_set_scored_against_itself(tree, tmp_path):
    run = iadjax.fit(config_of("against_itself", tree, protocol__name="zero_shot", protocol__test_batch=True), tmp_path / "run")
    items = run.data.split.test
    pixels = [run.transform.image(run.data.dataset.read(item)[0])[::4, ::4].reshape(-1, 3) for item in items]
    found = {item.path: score for item, score, _ in run.predict_items(items)}
    for i, item in enumerate(items):
        others = np.concatenate([each for j, each in enumerate(pixels) if j != i])
        truth = np.linalg.norm(pixels[i][:, None] - others[None], axis=-1).min(axis=1).max()
        np.testing.assert_allclose(found[item.path], truth, rtol=1e-5)
