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


def test_random_squares_of_an_image(tmp_path):
    # red tells the column, green the row
    grid = np.stack([*np.meshgrid(np.arange(60), np.arange(40)), np.zeros((40, 60))], -1).astype(np.uint8)
    Image.fromarray(grid).save(tmp_path / "a.png")
    source, rng = image_source(str(tmp_path), crop=0.5), np.random.default_rng(0)
    sides, lefts = [], []
    for _ in range(40):
        image = np.round(255 * source(rng, (16, 16)))
        # from the middle of the first pixel to that of the last are 15 of 16 parts of a side
        width, height = ((image[8, -1, 0] - image[8, 0, 0]) * 16 / 15, (image[-1, 8, 1] - image[0, 8, 1]) * 16 / 15)
        assert abs(width - height) < 3 and 17 < width < 42
        sides.append(width)
        lefts.append(image[8, 0, 0])
    assert max(sides) - min(sides) > 10 and max(lefts) - min(lefts) > 15
    with pytest.raises(UserError, match=r"must be in \(0, 1\], not 0"):
        image_source(str(tmp_path), crop=0)


def test_a_schedule_that_falls_to_zero_belongs_to_its_number_of_steps(tmp_path):
    backbone = backbones.backbone("filter_bank")
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    options = {"layers": ("layer2",), "size": 64, "batch_size": 2, "statistics_images": 2, "warmup_steps": 1}
    distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path, steps=2, **options)
    with pytest.raises(UserError, match="schedule was"):
        distill_pdn(backbone, frozen, draw_texture, workdir=tmp_path, steps=3, **options)


def test_photographs_are_collected_once_each(tmp_path, capsys):
    rng, source = np.random.default_rng(0), tmp_path / "packages"
    blocks = rng.integers(0, 128, (3, 4, 6, 3)).repeat(80, 1).repeat(80, 2)
    photographs = (blocks + rng.integers(0, 99, (3, 320, 480, 3))).astype(np.uint8)
    for name, image in {
        "a/one.png": photographs[0],
        "a/small.png": photographs[0][:200],
        "a/below/two.jpg": photographs[1],
        "b/again.png": photographs[0].repeat(2, 0).repeat(2, 1),
        "b/flat.png": np.full((300, 300, 3), 40, np.uint8),
        "b/three.png": photographs[2],
        "b/glass.png": np.concatenate((photographs[2], photographs[2][..., :1] // 2), -1),
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(source / name)
    command = [sys.executable, str(ROOT / "scripts/distill_images.py"), f"--collections={source}", "--textures=1", "--side=384"]
    done = subprocess.run([*command, f"--output={tmp_path}/out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ") for line in done.stdout.splitlines())
    assert {key: int(value) for key, value in said.items() if int(value)} == {
        "kept": 3,
        "a side under 256 pixels": 1,
        "looks like one before": 1,
        "nearly flat": 1,
        "a transparent part": 1,
        "drawn": 1,
    }
    sizes = []
    for file in sorted((tmp_path / "out").iterdir()):
        with Image.open(file) as image:
            sizes.append(image.size)
    assert sizes == [(384, 256)] * 3 + [(512, 512)]
    again = subprocess.run([*command, f"--output={tmp_path}/out"], capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.startswith(f"error: {tmp_path}/out exists")
    nowhere = subprocess.run([*command[:2], "--output=x"], capture_output=True, text=True, cwd=tmp_path)
    assert nowhere.returncode == 2 and "give --collections=DIR" in nowhere.stderr


def test_drawn_textures_differ_and_follow_their_seed():
    a, b, c = (draw_texture(np.random.default_rng(seed), (24, 36)) for seed in (0, 1, 0))
    assert a.shape == (24, 36, 3) and a.min() >= 0 and a.max() <= 1 and a.std() > 0
    assert np.array_equal(a, c) and not np.array_equal(a, b)


def test_script_names_what_is_wrong(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/distill.py"), "--backbone=filter_bank", "--layers=layer9"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2 and "has no layer 'layer9'" in result.stderr
