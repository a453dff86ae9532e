"""MSTUnet: hidden cells, losses by the formulas, the score, refusals; tests/parity/test_swin.py has the Swin blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.transformer.mstunet import MSTUnet, mstunet
from iadjax.errors import UserError
from iadjax.nn.swin import PatchExpanding, SwinUNet
from tests.direct import batch_of, predict, spec_for
from tests.parity.harness import empty_state

pytestmark = pytest.mark.usefixtures("plain_convolutions")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {"width": 4, "depths": (1, 1), "heads": (1, 2), "window": 4, "segment_width": 2, "cell": 8}
DETECTOR = mstunet(**SMALL, pool_size=5)
NETWORK = MSTUnet(4, (1, 1), (1, 2), 4, 2)
RNG = np.random.default_rng(0)
IMAGE, ORIGINAL = RNG.random((2, 2, 32, 32, 3), np.float32)
MASK = (RNG.random((2, 32, 32)) < 0.2).astype(np.uint8)


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(1)

    def drawn(leaf):
        # vectors are positive, as running variances have to be
        x = (
            rng.uniform(0.5, 1.5, leaf.shape)
            if leaf.ndim < 2
            else rng.normal(size=leaf.shape) / np.prod(leaf.shape[:-1]) ** 0.5
        )
        return jnp.asarray(x, leaf.dtype)

    state = empty_state(DETECTOR, {}, 32)
    return state._replace(variables=jax.tree.map(drawn, state.variables))


@pytest.fixture(scope="module")
def updated(state):
    """Of each choice of shown cells: what one update reports."""
    (phase,) = DETECTOR.phases(spec_for(DETECTOR, {}, 2, (32, 32, 3)))
    update = quickly(phase.update)

    def info(shown, augmented):
        extra = {"original": ORIGINAL, "augmented": augmented, "mask": MASK, "shown": np.broadcast_to(shown, (2, 4, 4))}
        return update(jax.random.key(0), state, {}, batch_of(DETECTOR, {}, IMAGE, extra=extra))[1]

    half = np.indices((4, 4)).sum(0) % 2 == 0
    return {"half": info(half, IMAGE), "none": info(False, IMAGE), "none, other": info(False, IMAGE[::-1])}


def test_losses_are_those_of_the_image_with_hidden_cells(state, updated):
    shown = np.kron(np.indices((4, 4)).sum(0) % 2 == 0, np.ones((8, 8)))[..., None].astype(np.float32)
    apply = jax.jit(functools.partial(NETWORK.apply, mutable="batch_stats"))
    (restored, logits), _ = apply(state.variables, IMAGE * shown, IMAGE, np.ones(2, bool))
    restored, logits = np.asarray(restored, np.float64), np.asarray(logits, np.float64)
    assert float(updated["half"]["loss_l2"]) == pytest.approx(np.mean((restored - ORIGINAL) ** 2), rel=1e-4)
    # the focal loss of the probability of the right class, gamma 2 (Lin et al., 2017, eq. 4)
    margin = np.where(MASK == 1, 1, -1) * (logits[..., 1] - logits[..., 0])
    right = 1 / (1 + np.exp(-margin))
    assert float(updated["half"]["loss_segment"]) == pytest.approx(np.mean(-((1 - right) ** 2) * np.log(right)), rel=1e-3)
    total = sum(float(updated["half"][f"loss_{name}"]) for name in ("l2", "ssim", "segment"))
    assert float(updated["half"]["loss"]) == pytest.approx(total, rel=1e-5)


def test_the_swin_network_does_not_see_hidden_cells_and_the_other_one_does(updated):
    # rows change places: what depends on the restored image alone stays
    here, other = updated["none"], updated["none, other"]
    assert float(here["loss_l2"]) == float(other["loss_l2"])
    assert float(here["loss_segment"]) != float(other["loss_segment"])


def test_so_many_cells_are_hidden():
    (phase,) = mstunet(**SMALL, mask_ratio=0.3).phases(spec_for(DETECTOR, {}, 2, (64, 32, 3)))
    image = np.random.default_rng(0).random((64, 32, 3), np.float32)
    made = [phase.augment(np.random.default_rng(seed), image, None) for seed in range(200)]
    assert {each["shown"].shape for each in made} == {(8, 4)}
    assert np.mean([each["shown"] for each in made]) == pytest.approx(0.7, abs=0.02)
    changed = [each["mask"].any() for each in made]
    assert np.mean(changed) == pytest.approx(0.5, abs=0.1)
    for each in made:
        assert np.array_equal(each["augmented"][each["mask"] == 0], image[each["mask"] == 0])


def test_score_pools_with_zeros_outside_and_nothing_is_hidden(state):
    found = predict(DETECTOR, state, {}, IMAGE)
    _, logits = jax.jit(NETWORK.apply)(state.variables, IMAGE, IMAGE)
    logits = np.asarray(logits, np.float64)
    maps = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    np.testing.assert_allclose(found.map, maps, atol=1e-5)
    padded = np.pad(maps, ((0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2)).mean((-2, -1))
    np.testing.assert_allclose(found.score, windows.max((1, 2)), rtol=1e-4)


def test_every_position_becomes_a_block_row_by_row():
    kernel = np.zeros((2, 12), np.float32)
    # what the first channel gives to the three channels of the block's four positions
    given = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    kernel[0] = given.reshape(-1)
    variables = {"params": {"expand": {"kernel": kernel}, "norm": {"scale": np.ones(3), "bias": np.arange(3.0)}}}
    variables = jax.tree.map(np.float32, variables)
    x = np.zeros((1, 1, 2, 2), np.float32)
    x[0, 0, 1, 0] = 1
    y = np.asarray(PatchExpanding(2, 3).apply(variables, x))
    assert y.shape == (1, 2, 4, 3)
    # a position of zeros keeps the bias, the other one is normalised over its three channels
    np.testing.assert_array_equal(y[0, :, :2], np.broadcast_to(np.arange(3.0), (2, 2, 3)))
    truth = np.arange(3) + (given - given.mean(1, keepdims=True)) / given.std(1, keepdims=True)
    np.testing.assert_allclose(y[0, :, 2:], truth.reshape(2, 2, 3), atol=1e-3)


def test_the_u_net_sees_far_and_passes_details_through():
    network = SwinUNet(3, 4, (2, 2), (1, 2), 2)
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), image)
    seen = jax.grad(lambda image: network.apply(variables, image)[0, 12, 12].sum())(image)
    reach = np.abs(np.asarray(seen)).max((0, 3)) > 0
    rows, columns = np.nonzero(reach)
    # patches of 4 in windows of 2, shifted by 1, on a grid of 8 and one of 4: more than a window, whole patches
    assert np.ptp(rows) + 1 >= 24 and np.ptp(columns) + 1 >= 24
    assert np.array_equal(reach, np.kron(reach[::4, ::4], np.ones((4, 4))).astype(bool))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": (3, 2)}, r"detector.heads \(3, 2\) must divide the channels of their stages, 4 doubled by each"),
        ({"depths": (1, 1, 1)}, "detector.depths and detector.heads must be as many numbers from 1"),
        ({"depths": (1, 0)}, "detector.depths and detector.heads must be as many numbers from 1"),
        ({"window": 1}, "detector.window"),
        ({"mask_ratio": 1.0}, "detector.mask_ratio"),
        ({"pool_size": 4}, "detector.pool_size"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        mstunet(**SMALL | options)


def test_sides_that_cannot_be_divided_are_refused():
    with pytest.raises(UserError, match=r"multiples of 96, got \(32, 32\); set data.resize or detector.cell"):
        empty_state(mstunet(**SMALL | {"cell": 12}), {}, 32)
