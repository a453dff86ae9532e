"""What `predict` takes: every kind of image that users hand in, by the documented rule or refused with the fix."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import iadjax
from iadjax.errors import UserError
from iadjax.experiment import record
from iadjax.experiment.images import as_pixels
from iadjax.export import export, load_exported
from tests.conftest import config_for, draw_tree

EIGHT = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
UNIT = EIGHT.astype(np.float32) / np.float32(255)
DEEP = EIGHT.astype(np.uint16) * 257
GREY = EIGHT[..., 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return iadjax.fit(config_for(draw_tree(root)), root / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return load_exported(export(run, tmp_path_factory.mktemp("exported")))


ONE = {
    "uint8": (EIGHT, EIGHT),
    "uint16": (DEEP, UNIT),
    "float32": (UNIT, UNIT),
    "float64": (UNIT.astype(np.float64), UNIT),
    "float16": (UNIT.astype(np.float16), UNIT.astype(np.float16).astype(np.float32)),
    "bfloat16": (jnp.asarray(UNIT, jnp.bfloat16), np.asarray(jnp.asarray(UNIT, jnp.bfloat16).astype(jnp.float32))),
    "rounded past 1": (np.where(UNIT == 1, np.float32(1.0005), UNIT), UNIT),
    "JAX": (jnp.asarray(EIGHT), EIGHT),
    "alpha": (np.dstack([EIGHT, GREY]), EIGHT),
    "grey [H, W]": (GREY, np.repeat(GREY[..., None], 3, -1)),
    "grey [H, W, 1]": (GREY[..., None], np.repeat(GREY[..., None], 3, -1)),
    "deep grey": (DEEP[..., 0], np.repeat(UNIT[..., :1], 3, -1)),
    "Pillow RGB": (Image.fromarray(EIGHT), EIGHT),
    "Pillow RGBA": (Image.fromarray(np.dstack([EIGHT, GREY])), EIGHT),
    "Pillow grey": (Image.fromarray(GREY), np.repeat(GREY[..., None], 3, -1)),
    "Pillow black and white": (Image.fromarray(GREY > 99), np.repeat(255 * (GREY > 99)[..., None].astype(np.uint8), 3, -1)),
    "Pillow 16 bits": (Image.fromarray(DEEP[..., 0]), np.repeat(UNIT[..., :1], 3, -1)),
    "Pillow floats": (Image.fromarray(UNIT[..., 0]), np.repeat(UNIT[..., :1], 3, -1)),
}


@pytest.mark.parametrize("name", ONE)
def test_one_image_of_every_kind(name):
    given, truth = ONE[name]
    found = as_pixels(given)
    assert found.dtype == truth.dtype
    np.testing.assert_array_equal(found, truth)


def test_a_pillow_image_that_says_how_it_is_turned():
    image = Image.fromarray(EIGHT)
    image.getexif()[0x0112] = 6  # a quarter turn to the right shows it upright
    np.testing.assert_array_equal(as_pixels(image), np.rot90(EIGHT, -1))


REFUSED = {
    "0 to 255 in floats": (EIGHT.astype(np.float32), r"floats from 0 to 255, which must be in \[0, 1\]; divide"),
    "-1 to 1 in floats": (UNIT * 2 - 1, r"floats from -1 to 1, which must be in \[0, 1\]"),
    "NaN": (np.where(EIGHT == 7, np.nan, UNIT), "holds NaN or infinite values; repair it"),
    "infinite": (np.where(EIGHT == 7, np.inf, UNIT), "holds NaN or infinite values"),
    "int64": (EIGHT.astype(np.int64), r"holds int64, whose range is not known; give uint8 .*image.astype\(np.uint8\)"),
    "bool": (EIGHT > 9, "holds bool, whose range is not known"),
    "uint32": (EIGHT.astype(np.uint32), "holds uint32"),
    "complex": (EIGHT.astype(np.complex64), "holds complex64"),
    "text in an array": (np.array([["a"]]), "holds <U1"),
    "two channels": (EIGHT[..., :2], r"must be \[H, W, 3\].*got the shape \(20, 24, 2\)$"),
    "channels first": (EIGHT.transpose(2, 0, 1), r"channels to the end: image.transpose\(1, 2, 0\)"),
    "five axes": (EIGHT[None, None], r"got the shape \(1, 1, 20, 24, 3\)"),
    "empty": (EIGHT[:0], r"got the shape \(0, 24, 3\)"),
    "a list of numbers": ([[1, 2, 3]], "must be a path, an array or a Pillow image, got list"),
    "Pillow 32 bits": (Image.fromarray(GREY.astype(np.int32)), "holds int32"),
    "a file": ("nowhere.png", "cannot read the image nowhere.png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_how_to_mend_it(name):
    given, sentence = REFUSED[name]
    with pytest.raises(UserError, match=sentence):
        as_pixels(given)


def many(path):
    """Every way to give two images, and one."""
    two = [EIGHT, EIGHT[::-1]]
    return {
        "list": (two, 2),
        "tuple": (tuple(two), 2),
        "array": (np.stack(two), 2),
        "JAX array": (jnp.stack(two), 2),
        "generator": ((each for each in two), 2),
        "paths": ([str(path), path], 2),
        "kinds": ([path, EIGHT, Image.fromarray(EIGHT), DEEP, UNIT.astype(np.float64)], 5),
        "one array": (EIGHT, 1),
        "one grey array": (GREY, 1),
        "one JAX array": (jnp.asarray(EIGHT), 1),
        "one path": (path, 1),
        "one text": (str(path), 1),
        "one Pillow image": (Image.fromarray(EIGHT), 1),
        "a batch of one": (EIGHT[None], 1),
        "grey arrays": (np.stack([GREY, GREY])[..., None], 2),
    }


def test_several_images_of_every_kind_for_runs_and_exported_detectors(run, exported, tmp_path):
    path = tmp_path / "é.png"
    Image.fromarray(EIGHT).save(path)
    for detector in (run, exported):
        alone = detector.predict([EIGHT])
        for name in many(path):
            images, number = many(path)[name]
            found = detector.predict(images)
            assert found.score.shape == (number,) and found.map.shape[0] == number, name
            if "grey" not in name:
                np.testing.assert_allclose(found.score[0], alone.score[0], rtol=1e-5, err_msg=name)
                np.testing.assert_allclose(found.map[0], alone.map[0], rtol=1e-4, atol=1e-5, err_msg=name)
            if name == "kinds":
                np.testing.assert_allclose(found.score, np.full(5, alone.score[0]), rtol=2e-2)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "no images to predict"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no images to predict"),
        (np.zeros((5, 20, 24), np.uint8), r"neither one image .* nor several \[B, H, W, C\].*\[B, H, W, 1\]"),
        ([EIGHT, EIGHT.astype(np.int64)], "image 1 holds int64"),
        ({"a": EIGHT}, "got dict"),
        (b"bytes", "got bytes"),
        (7, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_holds_no_images_is_refused(run, exported, images, sentence):
    for detector in (run, exported):
        with pytest.raises(UserError, match=sentence):
            detector.predict(images)


def test_lists_of_any_length_compile_two_shapes(run):
    # a size that no other test has
    config = {**run.config, "data": {**run.config["data"], "batch_size": 8}}
    run = dataclasses.replace(run, config=config, model=run.model._replace(transform=run.transform._replace(resize=20)))
    clock = record.Clock()
    images = np.random.default_rng(1).integers(0, 256, (19, 24, 24, 3), np.uint8)
    with record.compilations(clock):
        scores = {number: run.predict(images[:number]).score for number in (1, 2, 3, 5, 8, 9, 11, 19)}
    assert clock.programs["predict"] == 2
    for number, found in scores.items():
        np.testing.assert_allclose(found, scores[19][:number], rtol=1e-5)


def test_a_score_that_is_not_finite_is_refused(run):
    def broken(state, frozen, batch):
        prediction = run.detector.predict(state, frozen, batch)
        return prediction._replace(score=prediction.score.at[1:].set(jnp.nan))

    broken_run = dataclasses.replace(run, model=run.model._replace(detector=run.detector._replace(predict=broken)))
    with pytest.raises(UserError, match="image 1 is not finite; the detector has diverged"):
        broken_run.predict(np.stack([EIGHT, EIGHT]))


def test_batches_are_checked_too(run, exported):
    batch = np.random.default_rng(2).integers(0, 256, (1, 32, 32, 3), np.uint8)
    for detector in (run, exported):
        scores = [np.asarray(detector.predict_batch(each).score) for each in (batch, batch.astype(np.float32) / 255)]
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)
        for wrong in (batch[0], batch.astype(np.int64), batch.astype(np.float64), batch[..., :1], [1, 2]):
            with pytest.raises(UserError, match="predict takes images as they are"):
                detector.predict_batch(wrong)
