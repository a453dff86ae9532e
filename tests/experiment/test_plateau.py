"""Early stopping of a phase whose loss is flat."""

import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

import iadjax
from iadjax.errors import UserError
from iadjax.experiment.fit import Stopped
from iadjax.experiment.plateau import is_flat, looks, window_of
from tests.experiment.test_fit import same_state, stop_at, toy_config

__all__ = ["toy_config"]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-6, 3.0), (1e4, -5e4)])
def test_a_loss_is_flat_by_its_fall_alone(scale, offset):
    # exp(-t / 100) by hand: the fall between the last two of windows of 50 steps, as a part of all
    t = np.arange(1000)
    losses = offset + scale * np.exp(-t / 100)

    def fall(number):
        means = [np.mean(np.exp(-t[i : i + 50] / 100)) for i in (0, number - 100, number - 50)]
        return (means[1] - means[2]) / (means[0] - means[2])

    for number in (200, 300, 400, 600, 800, 1000):
        assert is_flat(losses[:number], 100) == (fall(number) <= 0.01)
    assert not is_flat(losses[:300], 100) and is_flat(losses, 100)


def test_rising_is_flat_and_few_losses_are_not():
    assert is_flat(np.arange(100.0), 20)
    assert not is_flat(np.ones(29), 20) and is_flat(np.ones(30), 20)
    assert not is_flat(np.ones(100), 19)
    assert not is_flat(np.full(200, np.nan), 20)


def test_noise_at_the_beginning_of_a_long_schedule_does_not_end_it():
    rng = np.random.default_rng(0)
    losses = np.exp(-np.arange(20000) / 3000) + 0.3 * rng.normal(size=20000)
    window = window_of(0.2, 20000)
    ends = [now for now in range(8, 20000, 8) if looks(now - 8, now, window) and is_flat(losses[:now], window)]
    # where the curve without noise is flat by the same rule
    assert window == 4000 and ends[0] >= 14000


def test_it_looks_once_for_each_half_of_the_window():
    passes = [(i, i + 4) for i in range(0, 4000, 4)]
    found = [now for before, now in passes if looks(before, now, 100)]
    assert found[:3] == [52, 100, 152] and len(found) == 80


@pytest.fixture
def falling(toy_config, monkeypatch):
    """A toy whose loss falls to 0 in 60 steps; its detector has no say in it."""
    from tests import toy

    real = toy.toy

    def with_loss(backbone, *, rate: float = 0.1, epochs: int = 100):
        detector = real(backbone, rate=rate, epochs=epochs)
        train, calibrate = detector.phases(None)

        def update(key, state, frozen, batch):
            state, info = train.update(key, state, frozen, batch)
            # which the phase behind this one sets, counts the steps here
            number = state.scale + 1
            return state._replace(scale=number), info | {"loss": jnp.maximum(0, 60 - number)}

        return detector._replace(phases=lambda spec: (train._replace(update=update), calibrate))

    monkeypatch.setattr(toy, "toy", with_loss)
    toy_config.detector.epochs = 100
    return toy_config


def test_a_phase_ends_when_its_loss_is_flat_also_after_a_stop(falling, tmp_path, monkeypatch, capsys):
    falling.plateau = 0.2
    whole = iadjax.fit(falling, tmp_path / "whole")
    said = capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    trained = [line["loss"] for line in lines if line["phase"] == "train"]
    # of 400 steps; the next phase went on behind it
    assert len(trained) in range(120, 180) and is_flat(trained, 80) and lines[-1]["phase"] == "calibrate"
    assert f"train: the loss has been flat over 80 steps, so it ends here, after {len(trained)} of 400" in said
    with monkeypatch.context() as patch:
        stop_at(patch, len(trained), lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            iadjax.fit(falling, tmp_path / "parts")
    assert same_state(whole, iadjax.fit(falling, tmp_path / "parts", resume=True))
    falling.plateau = 1.0
    with pytest.raises(UserError, match=r"config.plateau is a fraction of the steps of a phase, in \[0, 1\); got 1.0"):
        iadjax.fit(falling, tmp_path / "other")
    assert not (tmp_path / "other").exists()
