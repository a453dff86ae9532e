"""DeSTSeg: its phases and maps, rotations, refusals; tests/parity has the authors' numbers."""

import jax
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.teacher_student.destseg import GREY, Student, destseg
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

SIZE, LAYERS = 32, ("layer1", "layer2")
SMALL = {"layers": LAYERS, "width": 2, "blocks": 1, "hidden": 4, "rates": (2,)}


def built(**options):
    backbone, frozen = pyramid(), {"backbone": pyramid_variables()}
    detector = destseg(backbone, **{**SMALL, **options})
    return detector, frozen, spec_for(detector, frozen, 4, (SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def state():
    detector, frozen, spec = built()
    return jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(1))


def test_the_denoising_student_alone_gives_the_product_of_distances(state):
    detector, frozen, spec = built(segment=False, top=10)
    assert [phase.name for phase in detector.phases(spec)] == ["denoise"]
    image = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    levels = batch_of(detector, frozen, image).features
    student = Student((24, 24), 1, 2)
    found = jax.jit(lambda v, x: student.apply(v, x, [(8, 8), (4, 4)], None))(state.student.variables, image)
    product = np.ones((2, 8, 8), np.float32)
    for t, s in zip(levels, found, strict=True):
        t, s = (np.asarray(x, np.float64) for x in (t, s))
        cosine = (t * s).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(s, axis=-1)
        product = product * np.asarray(ops.resize((1 - cosine[..., None]).astype(np.float32), (8, 8)))[..., 0]
    maps = np.asarray(ops.resize(product[..., None].astype(np.float32), (SIZE, SIZE)))[..., 0]
    prediction = predict(detector, state, frozen, image)
    np.testing.assert_allclose(prediction.map, maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(prediction.score, np.sort(maps.reshape(2, -1), axis=1)[:, -10:].mean(axis=1), rtol=1e-3)


def test_the_second_phase_leaves_the_student_alone(state):
    """Its BatchNorm too: the student predicts in it."""
    detector, frozen, spec = built()
    image = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    extra = {"augmented": image[:, ::-1], "mask": np.ones((2, SIZE, SIZE), np.uint8)}
    new, _ = jax.jit(detector.phases(spec)[1].update)(
        jax.random.key(0), state, frozen, batch_of(detector, frozen, image, extra=extra)
    )
    for ours, before in zip(jax.tree.leaves(new.student), jax.tree.leaves(state.student), strict=True):
        np.testing.assert_array_equal(ours, before)
    assert not np.allclose(
        new.segmentation.variables["params"]["head_1"]["kernel"], state.segmentation.variables["params"]["head_1"]["kernel"]
    )


def test_rotated_images_are_grey_outside_and_taught_as_they_are():
    detector, _, spec = built(rotation=45.0)
    image = np.ones((SIZE, SIZE, 3), np.float32)
    drawn = [detector.phases(spec)[0].augment(np.random.default_rng(seed), image, None) for seed in range(5)]
    assert any(np.isclose(each["clean"][0, 0, 0], GREY, atol=1e-3) for each in drawn)
    for each in drawn:
        np.testing.assert_array_equal(each["augmented"][each["mask"] == 0], each["clean"][each["mask"] == 0])
    turned = (
        built(right_angles=True)[0]
        .phases(spec)[0]
        .augment(np.random.default_rng(0), image * np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None], None)
    )
    assert turned["clean"].shape == image.shape
    assert "clean" not in built()[0].phases(spec)[0].augment(np.random.default_rng(0), image, None)


def test_bad_options_are_refused():
    for options, match in (({"rates": ()}, "rates"), ({"max_beta": 1.5}, "max_beta"), ({"momentum": 1.0}, "momentum")):
        with pytest.raises(UserError, match=match):
            built(**options)
