"""Distillation: the teacher learns, is written by PyTorch's names, and comes back as a backbone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from iadjax import backbones
from iadjax.errors import UserError
from iadjax.experiment.distill import distill_pdn, save_teacher
from iadjax.experiment.log import Log
from iadjax.experiment.loop import Stopped
from iadjax.synthesis.source import draw_texture, image_source

ROOT = Path(__file__).parents[2]


def test_teacher_learns_goes_on_and_loads(tmp_path, monkeypatch):
    backbone = backbones.backbone("filter_bank")
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    options = {"layers": ("layer2",), "size": 64, "batch_size": 2, "statistics_images": 4, "learning_rate": 1e-3, "steps": 6}
    variables = distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path / "whole", **options)
    log = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6] and log[-1]["loss"] < 1.5
    # stopped after three steps and continued: the same bytes and the same losses
    write = Log.write

    def stop(self, step, *rest):
        write(self, step, *rest)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "write", stop)
        with pytest.raises(Stopped, match="step 3"):
            distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path / "parts", **options)
    with pytest.raises(UserError, match="seed was 0"):
        distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path / "parts", **options, seed=1)
    again = distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path / "parts", **options)
    with pytest.raises(UserError, match="has gone 6 steps, more than the 5"):
        distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path / "parts", **{**options, "steps": 5})
    assert (tmp_path / "parts/log.jsonl").read_bytes() == (tmp_path / "whole/log.jsonl").read_bytes()
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b)
    save_teacher("pdn_small", variables, tmp_path / "teacher.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "teacher.safetensors", "whole"]
    loaded = backbones.load_weights(backbones.backbone("pdn_small"), str(tmp_path / "teacher.safetensors"), ("features",), None)
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(loaded), strict=True):
        assert np.array_equal(a, b)


def test_source_reads_a_folder_and_resizes(tmp_path):
    Image.new("RGB", (30, 20), (255, 0, 51)).save(tmp_path / "a.png")
    image = image_source(str(tmp_path))(np.random.default_rng(0), (8, 12))
    assert image.shape == (8, 12, 3) and image.dtype == np.float32
    np.testing.assert_allclose(image[3, 3], [1, 0, 0.2], atol=1e-6)
    with pytest.raises(UserError, match="no images"):
        image_source(str(tmp_path / "nothing"))(np.random.default_rng(0), (8, 12))


def test_drawn_textures_differ_and_follow_their_seed():
    a, b, c = (draw_texture(np.random.default_rng(seed), (24, 36)) for seed in (0, 1, 0))
    assert a.shape == (24, 36, 3) and a.min() >= 0 and a.max() <= 1 and a.std() > 0
    assert np.array_equal(a, c) and not np.array_equal(a, b)


def test_script_names_what_is_wrong(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/distill.py"), "--backbone=filter_bank", "--layers=layer9"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2 and "has no layer 'layer9'" in result.stderr
