"""STPM against its formulas in NumPy."""

import jax
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from iadjax import backbones
from iadjax.detectors.families.student import Student
from iadjax.detectors.teacher_student.stpm import stpm
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

BACKBONE, FROZEN, LAYERS = pyramid(), {"backbone": pyramid_variables()}, ("layer1", "layer3")
KEY = jax.random.key(0)


def enlarged(maps, side):
    place = np.clip((np.arange(side) + 0.5) * maps.shape[1] / side - 0.5, 0, maps.shape[1] - 1)
    rows, columns = np.meshgrid(place, place, indexing="ij")
    return np.stack([map_coordinates(each, [rows, columns], order=1) for each in maps])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((2, 64, 64, 3), np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("at_input", [False, True])
def test_loss_map_and_step_follow_the_paper(image, at_input):
    options = {"width": 4, "loss_weight": 0.7, "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.2}
    detector = stpm(BACKBONE, layers=LAYERS, **options, at_input=at_input)
    spec = spec_for(detector, FROZEN, 2, (64, 64, 3))
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec)
    batch = batch_of(detector, FROZEN, image)
    network = Student((1, 3), tuple(level.shape[-1] for level in batch.features), (2, 2, 2, 2), False, 64, 4)
    teacher = [np.asarray(level, np.float64) for level in batch.features]

    maps = np.ones((2, 64 if at_input else 16, 64 if at_input else 16))
    for t, s in zip(teacher, jax.jit(network.apply)(state.variables, image), strict=True):
        distance = 0.5 * ((unit(t) - unit(np.asarray(s, np.float64))) ** 2).sum(-1)
        maps *= enlarged(distance, len(maps[0]))
    found = predict(detector, state, FROZEN, image)
    np.testing.assert_allclose(found.map, enlarged(maps, 64), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found.score, found.map.max((1, 2)))
    if at_input:
        return
    (phase,) = detector.phases(spec)
    new, info = jax.jit(phase.update)(KEY, state, FROZEN, batch)
    train = jax.jit(lambda *given: network.apply(*given, mutable="batch_stats"))
    levels, _ = train(state.variables, image, batch.valid)
    distances = [
        ((unit(t) - unit(np.asarray(s, np.float64))) ** 2).sum(-1).mean() for t, s in zip(teacher, levels, strict=True)
    ]
    assert float(info["loss"]) == pytest.approx(0.7 * sum(distances), rel=1e-4)
    # SGD as PyTorch has it: the decay is part of the gradient that the momentum keeps
    old, kernel = (each.variables["params"]["head1"]["kernel"] for each in (state, new))
    moment = next(part for part in new.optimizer if hasattr(part, "__len__") and len(part))[0].trace["head1"]["kernel"]
    np.testing.assert_allclose(kernel, old - 0.1 * moment, atol=1e-7)
    running = [each.variables["batch_stats"]["resnet"]["bn1"]["mean"] for each in (state, new)]
    assert not np.any(running[0]) and np.any(running[1])


def test_a_student_of_a_resnet_is_that_resnet():
    teacher = backbones.backbone("resnet50")
    detector = stpm(teacher, layers=("layer1", "layer2"))
    frozen = {"backbone": jax.eval_shape(lambda key: teacher.init(key, ("layer1", "layer2")), KEY)}
    spec = spec_for(detector, frozen, 2, (64, 64, 3))
    state = jax.eval_shape(lambda key: detector.init(key, frozen, spec), KEY)
    shapes = jax.tree.map(lambda leaf: leaf.shape, state.variables["params"]["resnet"])
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, frozen["backbone"]["params"])


def test_bad_options_are_refused():
    with pytest.raises(UserError, match=r"momentum must be in \[0, 1\)"):
        stpm(BACKBONE, momentum=1.0)
    small = backbones.backbone("pdn_small")
    detector = stpm(small, layers=("features",))
    frozen = {"backbone": jax.eval_shape(lambda key: small.init(key, small.layers), KEY)}
    with pytest.raises(UserError, match="the student has the grids|has the grids"):
        detector.init(KEY, frozen, spec_for(detector, frozen, 2, (128, 128, 3)))
