"""SCADN: stripes, losses, spectral norms, how scales are merged, refusals; tests/parity has the authors' numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.gan.scadn import Discriminator, Generator, scadn
from iadjax.errors import UserError
from iadjax.synthesis.stripes import striped_masks
from tests.direct import batch_of, spec_for
from tests.parity.harness import empty_state

pytestmark = pytest.mark.usefixtures("plain_convolutions")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {
    "width": 2,
    "blocks": 1,
    "discriminator_width": 2,
    "stripes": (2, 4),
    "hidden_weight": 3.0,
    "adversarial_weight": 0.5,
    "top": 0.5,
}
DETECTOR = scadn(**SMALL)
GENERATOR = Generator(2, 1)
RNG = np.random.default_rng(0)
IMAGE = RNG.random((2, 24, 24, 3), np.float32)
HIDDEN = striped_masks((24, 24), 4)[[0, 3]]


@pytest.fixture(scope="module")
def state():
    # norms of kernels are positive
    rng = np.random.default_rng(1)
    drawn = lambda leaf: 0.3 * rng.standard_normal(leaf.shape) if leaf.ndim else 1.0  # noqa: E731
    state = empty_state(DETECTOR, {}, 24)
    networks = [jax.tree.map(lambda leaf: jnp.asarray(drawn(leaf), leaf.dtype), each.variables) for each in state[:2]]
    return type(state)(*(each._replace(variables=new) for each, new in zip(state[:2], networks, strict=True)), *state[2:])


@pytest.fixture(scope="module")
def updated(state):
    batch = batch_of(DETECTOR, {}, IMAGE, extra={"hidden": HIDDEN})
    return quickly(DETECTOR.phases(None)[0].update)(jax.random.key(0), state, {}, batch)


@pytest.fixture(scope="module")
def restored(state):
    """Images restored from each of the eight masks, `[2, 4, B, H, W, 3]`, and the masks."""
    masks = np.concatenate([striped_masks((24, 24), number) for number in (2, 4)]).astype(np.float32)[..., None]

    def outputs(variables):
        return jax.lax.map(lambda mask: GENERATOR.apply(variables, IMAGE * (1 - mask) + mask), jnp.asarray(masks)[:, None])

    found = np.asarray(quickly(outputs)(state.generator.variables))
    return found.reshape(2, 4, *IMAGE.shape), masks[..., 0].reshape(2, 4, 1, 24, 24)


def test_stripes_and_the_rest_hide_each_pixel_twice():
    masks = striped_masks((8, 12), 4)
    assert masks.shape == (4, 8, 12) and masks.dtype == np.uint8
    np.testing.assert_array_equal(masks[0], np.tile([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0], (8, 1)))
    np.testing.assert_array_equal(masks[2], np.tile([1, 1, 0, 0, 1, 1, 0, 0], (12, 1)).T)
    np.testing.assert_array_equal(masks[[0, 2]] + masks[[1, 3]], 1)


def test_training_draws_every_mask():
    augment, rng = DETECTOR.phases(None)[0].augment, np.random.default_rng(0)
    drawn = {augment(rng, IMAGE[0], None)["hidden"].tobytes() for _ in range(100)}
    assert drawn == {mask.tobytes() for number in (2, 4) for mask in striped_masks((24, 24), number)}


def test_the_losses_of_one_update(state, updated):
    _, info = updated
    mask = HIDDEN[..., None].astype(np.float32)

    def outputs(state):
        made = GENERATOR.apply(state.generator.variables, IMAGE * (1 - mask) + mask)
        variables, logits = state.discriminator.variables, []
        for x in (IMAGE, made):
            found, changed = Discriminator(2).apply(variables, x, True, mutable="batch_stats")
            variables = {**variables, **changed}
            logits.append(found)
        first = Discriminator(2).apply(state.discriminator.variables, made, True, mutable="batch_stats")[0]
        return made, first, *logits

    made, first, real, fake = (np.asarray(each, np.float64) for each in quickly(outputs)(state))
    error = (made - IMAGE) ** 2
    truth = ((error * (1 - mask)).mean() + 3 * (error * mask).mean()) / 0.5
    np.testing.assert_allclose(info["loss_reconstruction"], truth, rtol=1e-4)
    np.testing.assert_allclose(info["loss"], truth + 0.5 * np.log1p(np.exp(-first)).mean(), rtol=1e-4)
    judged = (np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean()) / 2
    np.testing.assert_allclose(info["loss_discriminator"], judged, rtol=1e-4)


def test_the_norms_come_near_the_largest_singular_values(state):
    variables = state.discriminator.variables

    def iterate(variables):
        step = lambda _, v: {**v, **Discriminator(2).apply(v, IMAGE, True, mutable="batch_stats")[1]}  # noqa: E731
        return jax.lax.fori_loop(0, 60, step, variables)

    found = quickly(iterate)(variables)
    for layer in (1, 5):
        kernel = np.asarray(variables["params"][f"conv{layer}_0"]["kernel"], np.float64)
        sigma = found["batch_stats"][f"norm{layer}"][f"conv{layer}_0/kernel/sigma"]
        np.testing.assert_allclose(sigma, np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[1][0], rtol=1e-3)


@pytest.mark.parametrize("merge", ["largest", "mean"])
def test_maps_of_the_scales_are_merged(state, restored, merge):
    made, masks = restored
    maps = (((made.astype(np.float64) - IMAGE) ** 2).mean(-1) * masks).max(axis=1)
    means = maps.mean((2, 3))
    # halfway between the images' differences, so that each image has another scale
    errors = np.array([1.0, 1.0 + (means[1] - means[0]).mean()])
    detector = scadn(**SMALL, merge=merge)
    known = state._replace(errors=jnp.float32(errors))
    found = quickly(detector.predict)(known, {}, batch_of(detector, {}, IMAGE))
    if merge == "mean":
        truth = (maps / errors[:, None, None, None]).mean(axis=0)
    else:
        scale = np.argmax(means - errors[:, None], axis=0)
        assert sorted(scale) == [0, 1]
        truth = maps[scale, [0, 1]]
    np.testing.assert_allclose(found.map, truth, rtol=1e-3, atol=1e-5)
    largest = np.sort(truth.reshape(2, -1))[:, -288:]
    np.testing.assert_allclose(found.score, largest.mean(axis=1), rtol=1e-4)


def test_the_errors_of_training_images_are_their_mean(state, restored):
    made, masks = restored
    maps = (((made.astype(np.float64) - IMAGE) ** 2).mean(-1) * masks).max(axis=1)
    calibrate, new = quickly(DETECTOR.phases(None)[1].update), state
    for valid in ([True, True], [True, False]):
        new, _ = calibrate(jax.random.key(0), new, {}, batch_of(DETECTOR, {}, IMAGE, valid=valid))
    means = maps.mean((2, 3))
    np.testing.assert_allclose(new.errors, (2 * means[:, 0] + means[:, 1]) / 3, rtol=1e-4)
    assert float(new.count) == 3


@pytest.mark.parametrize(("stripes", "shape"), [((4,), (24, 20)), ((16,), (24, 24)), ((2,), (16, 16))])
def test_sides_that_do_not_fit_are_refused(stripes, shape):
    detector = scadn(stripes=stripes)
    with pytest.raises(UserError, match="scadn needs sides of at least 24 that are multiples of 8"):
        detector.init(jax.random.key(0), {}, spec_for(detector, {}, 2, (*shape, 3)))


def test_bad_options_are_refused():
    for stripes in ((), (3,), (0,)):
        with pytest.raises(UserError, match="stripes must be positive even numbers"):
            scadn(stripes=stripes)
    with pytest.raises(UserError, match="merge must be 'largest' or 'mean'"):
        scadn(merge="max")
