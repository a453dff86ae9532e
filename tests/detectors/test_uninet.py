"""UniNet's selection, loss and score in NumPy float64; masks, refusals. tests/parity has anomalib's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.backbones.weights import fill
from iadjax.detectors.families.reverse import reverse_student
from iadjax.detectors.teacher_student.uninet import log_match, select, uninet, weighted_score
from iadjax.errors import UserError
from iadjax.nn.residual import SplitBlock
from tests import torch_parity as parity
from tests.direct import batch_of, spec_for
from tests.tiny import pyramid, pyramid_variables, tiny_networks

pytestmark = pytest.mark.usefixtures("plain_convolutions", "tiny")

BACKBONE, SIZE = pyramid(), 32


@pytest.fixture
def tiny():
    """Students with one block of one convolution at each stage."""
    with tiny_networks():
        yield


def softmax(x, axis):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_block_of_two_branches_equals_pytorch():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            for i in range(2):
                for step, (inputs, stride) in enumerate(((3, 2), (4, 1)), start=1):
                    setattr(self, f"branch{i}_conv{step}", nn.Conv2d(inputs, 4, 3, stride, 1, bias=i == 1))
                    setattr(self, f"branch{i}_bn{step}", nn.BatchNorm2d(4))
            self.conv3, self.bn3 = nn.Conv2d(8, 5, 1, bias=False), nn.BatchNorm2d(5)
            self.downsample = nn.Sequential(nn.Conv2d(6, 5, 1, 2, bias=False), nn.BatchNorm2d(5))

        def forward(self, x):
            branches = []
            for i, y in enumerate(x.split(3, dim=1)):
                conv1, bn1, conv2, bn2 = (getattr(self, f"branch{i}_{name}") for name in ("conv1", "bn1", "conv2", "bn2"))
                branches.append(bn2(conv2(torch.relu(bn1(conv1(y))))))
            return torch.relu(self.bn3(self.conv3(torch.cat(branches, 1))) + self.downsample(x))

    module, ours = Block(), SplitBlock(5, 8, 2, True)
    parity.randomize(module)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 6)).astype(np.float32)
    variables = fill(jax.jit(ours.init, static_argnums=2)(jax.random.key(0), x, None), parity.tensors(module))
    with torch.no_grad():
        expected = parity.from_torch(module.eval()(parity.to_torch(x)))
    parity.assert_close(jax.jit(ours.apply, static_argnums=2)(variables, x, None), expected, 1e-5)


def levels(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))


def test_selection_weighs_positions_and_channels_by_the_teacher():
    student, prior = levels()
    theta = np.linspace(0.5, 1, 5)
    weights = softmax(prior.reshape(2, 12, 5), 1).reshape(prior.shape)
    expected = student * weights * (theta + prior.mean(axis=(1, 2), keepdims=True))
    found = jax.jit(select)(*(jnp.float32(x) for x in (student, prior, theta)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    expected = student * weights * (1 + prior.mean(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(select(jnp.float32(student), jnp.float32(prior), 1.0), expected, rtol=1e-4, atol=1e-6)


def test_every_position_is_matched_within_its_image():
    s, t = (unit(x) for x in levels(1))
    cosines = np.einsum("bic,bjc->bij", s.reshape(2, 12, 5), t.reshape(2, 12, 5))
    expected = np.log(np.stack([np.diag(softmax(each / 0.3, 1)) for each in cosines])).reshape(2, 3, 4)
    found = jax.jit(log_match, static_argnums=2)(jnp.float32(s), jnp.float32(t), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_score_is_the_mean_of_a_number_of_pixels_that_the_largest_distances_set():
    rng = np.random.default_rng(0)
    maps, largest = rng.random((3, 20, 20)), np.array([[0.9, 1.3, 0.1], [0.4, 0.4, 0.4], [0.1, 0.02, 0.01]])
    found = jax.jit(weighted_score, static_argnums=(2, 3))(jnp.float32(largest), jnp.float32(maps), 0.02, 4e-3)
    ordered = -np.sort(-maps.reshape(3, -1), axis=1)
    # 400 pixels x 0.02 x the mean of those above: (0.9 + 1.3) / 2, 0.4 where all are equal, and 0.1, which beta replaces
    numbers = (8, 3, 1)
    np.testing.assert_allclose(found, [row[:number].mean() for row, number in zip(ordered, numbers, strict=True)], rtol=1e-5)
    whole = weighted_score(jnp.float32(largest), jnp.float32(maps), 0.0, 0.0)
    np.testing.assert_allclose(whole, maps.max(axis=(1, 2)), rtol=1e-6)


def distances(student, statistics, features, thetas, temperature):
    """Of each level the probabilities of matches, the cosine distances and what is restored, of both halves of the batch."""
    both = [jnp.concatenate([level, level]) for level in features]
    network, own = reverse_student(BACKBONE, both, split=True), {"params": student, "batch_stats": statistics}
    restored, _ = jax.jit(lambda own: network.apply(own, both, jnp.ones(4, bool), mutable="batch_stats"))(own)
    for t, x, theta in zip(both, restored, thetas, strict=True):
        t, x = np.asarray(t, np.float64), np.asarray(x, np.float64)
        weights = softmax(t.reshape(4, -1, t.shape[-1]), 1).reshape(t.shape)
        scale = np.minimum(0.5 + 1 / (1 + np.exp(-np.asarray(theta, np.float64))), 1)
        s = unit(x * weights * (scale + t.mean(axis=(1, 2), keepdims=True)))
        s, t = (each.reshape(4, -1, each.shape[-1]) for each in (s, unit(t)))
        cosines = np.einsum("bic,bjc->bij", s, t)
        diagonal = [np.stack([np.diag(each) for each in of]) for of in (softmax(cosines / temperature, 2), cosines)]
        yield diagonal[0], 1 - diagonal[1], x


def test_a_step_follows_the_formulas_for_normal_and_for_labelled_anomalous_positions():
    options = {"temperature": 0.5, "cosine_weight": 0.6, "anomalous_margin": 0.01, "classify": True}
    rates = {"learning_rate": 1e-2, "target_rate": 1e-4, "weight_decay": 0.0}
    frozen = {"backbone": pyramid_variables()}
    detector = uninet(BACKBONE, **options, **rates)
    spec = spec_for(detector, frozen, 2, (SIZE, SIZE, 3))
    state = jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(0))
    before = state.variables["params"]
    jax.tree.map(np.testing.assert_array_equal, before["target"], frozen["backbone"]["params"])
    before["theta"]["theta2"] = jnp.linspace(-2, 1, 24)
    image = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    mask = np.zeros((2, SIZE, SIZE), np.uint8)
    mask[1, :16, :16] = 1
    batch = batch_of(detector, frozen, image, label=[0, 1])._replace(mask=mask)
    thetas, expected = [before["theta"][f"theta{i}"] for i in (1, 2, 3)], 0
    statistics = state.variables["batch_stats"]["student"]
    for level, (p, distance, restored) in enumerate(distances(before["student"], statistics, batch.features, thetas, 0.5)):
        step = 4 * 2**level
        anomalous = np.tile(mask[:, ::step, ::step].reshape(2, -1) > 0, (2, 1))
        assert 0 < anomalous.sum() < anomalous.size
        # twice the mean over both teachers
        expected += 2 * (0.6 * distance.mean() - 0.4 * np.log(p[~anomalous]).mean() + (1 - p[~anomalous]).mean())
        expected += 2 * np.maximum(p[anomalous] - 0.01, 0).mean()
        if level == 0:
            logits = restored.mean(axis=(1, 2)) @ np.asarray(before["fc"]["kernel"], np.float64)[:, 0]
            logits += float(before["fc"]["bias"][0])
            expected += 2 * np.mean(np.log1p(np.exp(logits)) - logits * np.tile([0, 1], 2))
    (phase,) = detector.phases(spec)
    new, info = jax.jit(phase.update)(jax.random.key(0), state, frozen, batch)
    np.testing.assert_allclose(info["loss"], expected, rtol=1e-4)
    # Adam's first step is the rate, whatever the gradient is
    after = new.variables["params"]
    for name, rate in (("student", 1e-2), ("target", 1e-4), ("fc", 1e-2)):
        steps = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), before[name], after[name])
        assert max(jax.tree.leaves(steps)) == pytest.approx(rate, rel=1e-2)
    # theta has a gradient although it begins at its largest value; above it there is none
    first, second = (np.abs(after["theta"][name] - before["theta"][name]) for name in ("theta1", "theta2"))
    np.testing.assert_allclose(first, 1e-2, rtol=1e-2)
    assert np.array_equal(second > 0, np.asarray(before["theta"]["theta2"]) <= 0)


def test_bad_options_are_refused():
    for options, match in (
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"alpha": 0.6}, r"alpha must be in \[0, 0.5\]"),
        ({"layers": ("layer1",)}, "must name three levels for uninet"),
    ):
        with pytest.raises(UserError, match=match):
            uninet(BACKBONE, **options)
