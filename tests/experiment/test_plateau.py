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
from iadjax.experiment.plateau import is_flat, looks
from tests.experiment.test_fit import same_state, stop_at, toy_config

__all__ = ["toy_config"]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-6, 3.0), (1e4, -5e4)])
def test_a_loss_is_flat_by_its_fall_alone(scale, offset):
    # exp(-t / 100) with windows of a tenth: by hand, the fall between the last two is 1 % of all at 300 steps, 10 % at 100
    t = np.arange(1000)
    losses = offset + scale * np.exp(-t / 100)

    def fall(number):
        half = number // 10
        means = [np.mean(np.exp(-t[i : i + half] / 100)) for i in (0, number - 2 * half, number - half)]
        return (means[1] - means[2]) / (means[0] - means[2])

    for number in (200, 300, 400, 600, 800, 1000):
        assert is_flat(losses[:number], 0.2) == (fall(number) <= 0.01)
    assert not is_flat(losses[:200], 0.2) and is_flat(losses, 0.2)


def test_rising_is_flat_and_few_losses_are_not():
    assert is_flat(np.arange(100.0), 0.2)
    assert not is_flat(np.ones(99), 0.2) and is_flat(np.ones(100), 0.2)
    assert not is_flat(np.full(200, np.nan), 0.2)


def test_it_looks_once_for_each_growth():
    passes = [(i, i + 4) for i in range(0, 4000, 4)]
    found = [now for before, now in passes if looks(before, now, 0.2)]
    assert looks(0, 4, 0.2) and not looks(0, 0, 0.2) and not looks(-4, 0, 0.2)
    late = [each for each in found if each > 40]
    # each about a fifth more than the one before, to the next pass
    assert all(1.2 * a - 4 <= b <= 1.2 * a + 4 for a, b in zip(late, late[1:], strict=False))


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
    assert 100 <= len(trained) < 160 and is_flat(trained, 0.2) and lines[-1]["phase"] == "calibrate"
    assert f"train: the loss has been flat for the last 20% of {len(trained)} steps" in said
    with monkeypatch.context() as patch:
        stop_at(patch, len(trained), lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            iadjax.fit(falling, tmp_path / "parts")
    assert same_state(whole, iadjax.fit(falling, tmp_path / "parts", resume=True))
    falling.plateau = 1.0
    with pytest.raises(UserError, match=r"config.plateau is a fraction of the steps of a phase, in \[0, 1\); got 1.0"):
        iadjax.fit(falling, tmp_path / "other")
    assert not (tmp_path / "other").exists()
