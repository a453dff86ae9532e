"""The driver: checkpoints, resume from anywhere, determinism, and what it refuses."""

import json
import os
import signal

import jax
import numpy as np
import pytest

import iadjax
from iadjax import detectors
from iadjax.config import base_config
from iadjax.errors import UserError
from iadjax.experiment import checkpoint
from iadjax.experiment.fit import Stopped
from iadjax.experiment.log import Log


@pytest.fixture
def toy_config(monkeypatch):
    monkeypatch.setitem(detectors.MODULES, "toy", "tests.toy")
    config = base_config("toy", "synthetic")
    config.data.update({"category": "washer", "resize": 16, "batch_size": 16, "workers": 2})
    config.evaluate.pixel = False
    return config


def same_state(a, b) -> bool:
    leaves = zip(jax.tree.leaves(a.state), jax.tree.leaves(b.state), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in leaves)


def stop_at(monkeypatch, step, action):
    """Runs `action` when the log gets this step."""
    write = Log.write

    def wrapped(self, number, *rest):
        write(self, number, *rest)
        if number == step:
            action()

    monkeypatch.setattr(Log, "write", wrapped)


@pytest.mark.parametrize("step", [2, 4, 7, 12, 13])
def test_resume_after_signal_is_bit_identical(toy_config, tmp_path, monkeypatch, step):
    # 54 training images in batches of 16: 4 steps an epoch, 3 epochs, then 1 step of calibration
    whole = iadjax.fit(toy_config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped, match=f"step {step}"):
            iadjax.fit(toy_config, tmp_path / "parts")
    before = json.loads((tmp_path / "parts/run.json").read_text())["wall_seconds"]
    parts = iadjax.fit(toy_config, tmp_path / "parts", resume=True)
    # the seconds of both parts
    after = json.loads((tmp_path / "parts/run.json").read_text())["wall_seconds"]
    assert 0 < before["fit"] < after["fit"] and 0 < before["prepare"] < after["prepare"]
    assert same_state(whole, parts)
    assert whole.threshold == parts.threshold
    read = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "parts")]
    assert read[0] == read[1]


def test_resume_after_a_kill_repeats_from_the_last_checkpoint(toy_config, tmp_path, monkeypatch):
    toy_config.checkpoint_every = 3
    whole = iadjax.fit(toy_config, tmp_path / "whole")

    def die():
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        stop_at(patch, 8, die)
        with pytest.raises(RuntimeError, match="killed"):
            iadjax.fit(toy_config, tmp_path / "parts")
    assert checkpoint.read(checkpoint.latest(tmp_path / "parts/checkpoints"))["position"].step == 6
    parts = iadjax.fit(toy_config, tmp_path / "parts", resume=True)
    assert same_state(whole, parts)
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 14))


def test_patchcore_resumes_in_the_middle(config, tmp_path, monkeypatch):
    whole = iadjax.fit(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped):
            iadjax.fit(config, tmp_path / "parts")
    # nothing predicts with a bank that is half full
    with pytest.raises(UserError, match="not finished fitting"):
        iadjax.load(tmp_path / "parts")
    assert same_state(whole, iadjax.fit(config, tmp_path / "parts", resume=True))
    assert same_state(whole, iadjax.load(tmp_path / "parts"))


def test_a_full_disk_keeps_the_checkpoint_before(toy_config, tmp_path, monkeypatch):
    toy_config.checkpoint_every = 3
    save, calls = checkpoint.ocp.save, []

    def full(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir()
            raise OSError(28, "No space left on device")
        return save(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp, "save", full)
        with pytest.raises(UserError, match="No space left on device.*step_000000003.* is intact.*--resume"):
            iadjax.fit(toy_config, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_000000003_00_000000"]
    assert same_state(iadjax.fit(toy_config, tmp_path / "whole"), iadjax.fit(toy_config, tmp_path / "run", resume=True))


def test_update_is_traced_once(toy_config, tmp_path, monkeypatch):
    import tests.toy as toy_module

    traces = []
    original = toy_module.toy

    def counted(backbone, *, rate: float = 0.1, epochs: int = 3):
        detector = original(backbone, rate=rate, epochs=epochs)

        def update(*args):
            traces.append(1)
            return first.update(*args)

        first, *others = detector.phases(None)
        return detector._replace(phases=lambda spec: (first._replace(update=update), *others))

    monkeypatch.setattr(toy_module, "toy", counted)
    iadjax.fit(toy_config, tmp_path / "run")
    assert len(traces) == 1


def test_refuses_a_workdir_that_holds_another_run(toy_config, tmp_path):
    iadjax.fit(toy_config, tmp_path / "run")
    with pytest.raises(UserError, match="holds another run; continue it with --resume"):
        iadjax.fit(toy_config, tmp_path / "run")
    toy_config.detector.rate = 0.2
    with pytest.raises(UserError, match="another config: detector.rate was 0.1, now 0.2"):
        iadjax.fit(toy_config, tmp_path / "run", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty and holds no run"):
        iadjax.fit(toy_config, tmp_path / "other")
    assert (tmp_path / "other/letter.txt").read_text() == "dear"


def test_a_checkpoint_of_another_config_or_other_weights_is_refused(config, tmp_path):
    run = iadjax.fit(config, tmp_path / "run")
    path = checkpoint.latest(tmp_path / "run/checkpoints")
    stored = checkpoint.read(path)
    with pytest.raises(UserError, match="another config: seed was 0, now 1"):
        checkpoint.restore(path, stored, run.state, {"config": {**stored["config"], "seed": 1}, "weights": run.weights})
    other = {"backbone": {**run.weights["backbone"], "hash": "0" * 64}}
    with pytest.raises(UserError, match="other weights of filter_bank"):
        checkpoint.restore(path, stored, run.state, {"config": stored["config"], "weights": other})


def test_a_checkpoint_of_an_earlier_version_is_refused(toy_config, tmp_path):
    run = iadjax.fit(toy_config, tmp_path / "run")
    identity = {"config": iadjax.config.fit_keys(run.config), "weights": run.weights}
    path = checkpoint.save(tmp_path / "run/checkpoints", run.state, checkpoint.Position(2, 0, 0, 99), identity, run.spec)
    assert path == checkpoint.latest(tmp_path / "run/checkpoints")
    with pytest.raises(UserError, match="was written by an earlier version of iadjax.*fit it again"):
        iadjax.load(tmp_path / "run")


def test_a_run_from_before_a_key_existed_still_loads(toy_config, tmp_path):
    run = iadjax.fit(toy_config, tmp_path / "run")
    keys = {key: value for key, value in iadjax.config.fit_keys(run.config).items() if key != "data.channels"}
    identity = {"config": keys, "weights": run.weights, "carried": False}
    checkpoint.save(tmp_path / "run/checkpoints", run.state, checkpoint.Position(2, 0, 0, 99), identity, run.spec)
    loaded = iadjax.load(tmp_path / "run")
    assert loaded.threshold == run.threshold and loaded.config["data"]["channels"] == "auto"


def test_a_phase_on_held_out_images_needs_some(toy_config, tmp_path):
    toy_config.threshold.holdout = 0.0
    with pytest.raises(UserError, match="'calibrate' needs held-out normal images.*threshold.holdout"):
        iadjax.fit(toy_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_log_goes_to_tensorboard(toy_config, tmp_path):
    iadjax.fit(toy_config, tmp_path / "run")
    files = list((tmp_path / "run/tensorboard").glob("events*"))
    assert files and b"train/mean" in files[0].read_bytes()


@pytest.mark.parametrize("name", ["quantile", "k_sigma", "target_fpr"])
def test_every_threshold_rule_takes_its_own_options(toy_config, tmp_path, name):
    toy_config.threshold.name = name
    threshold = iadjax.fit(toy_config, tmp_path / "run").threshold
    own = {"quantile": "quantile", "k_sigma": "num_sigmas", "target_fpr": "fpr"}[name]
    assert threshold["name"] == name and set(threshold) & {"quantile", "num_sigmas", "fpr", "tail_fraction"} == {own}


def test_an_unknown_threshold_is_refused_before_fitting(toy_config, tmp_path):
    toy_config.threshold.name = "k_sgima"
    with pytest.raises(UserError, match="no threshold rule 'k_sgima'; did you mean 'k_sigma'"):
        iadjax.fit(toy_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
