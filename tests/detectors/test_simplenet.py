"""SimpleNet against a PyTorch module written from the paper's description."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iadjax import backbones, losses, ops
from iadjax.detector import Batch, DataSpec
from iadjax.detectors.one_class.simplenet import Adaptor, Discriminator, simplenet
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from tests import torch_parity as parity

DEPTH, HIDDEN = 12, 7


def torch_networks():
    nn = pytest.importorskip("torch").nn
    from collections import OrderedDict

    body = nn.Sequential(OrderedDict(block1=nn.Sequential(nn.Linear(DEPTH, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.LeakyReLU(0.2))))
    projection = nn.ModuleDict({"layers": nn.Sequential(OrderedDict({"0fc": nn.Linear(DEPTH, DEPTH)}))})
    discriminator = nn.ModuleDict({"body": body, "tail": nn.Linear(HIDDEN, 1, bias=False)})
    whole = nn.ModuleDict({"pre_projection": projection, "discriminator": discriminator})
    parity.randomize(whole)
    return whole


def judged(module, x):
    return module["discriminator"]["tail"](module["discriminator"]["body"](x))[:, 0]


def built(**options):
    backbone = backbones.backbone("filter_bank")
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    sizes = {"pretrain_dimension": 16, "target_dimension": DEPTH, "hidden": HIDDEN}
    detector = simplenet(backbone, **{**sizes, **options})
    return (
        detector,
        frozen,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, DataSpec(4, (32, 32, 3), ("a",))),
    )


def test_networks_loss_and_gradients_equal_pytorch():
    torch = pytest.importorskip("torch")
    module = torch_networks()
    _, _, state = built()
    tensors = parity.tensors(module)
    variables = from_torch("simplenet", tensors, state).variables
    rng = np.random.default_rng(0)
    x, noise = (rng.normal(size=(3, 4, 5, DEPTH)).astype(np.float32) for _ in range(2))
    params, stats = variables["params"], variables["batch_stats"]
    flat, flat_noise = (torch.from_numpy(each.reshape(-1, DEPTH)) for each in (x, noise))
    module.eval()
    q = Adaptor().apply({"params": params["adaptor"]}, x)
    adapted = module["pre_projection"]["layers"](flat)
    parity.assert_close(q, adapted.detach().reshape(x.shape), 1e-4)
    own = {"params": params["discriminator"], "batch_stats": stats}
    parity.assert_close(Discriminator(HIDDEN).apply(own, q), judged(module, adapted).detach().reshape(3, 4, 5), 1e-4)

    module.train()
    both = judged(module, torch.cat([adapted, adapted + 0.5 * flat_noise]))
    true, fake = both.chunk(2)
    value = (0.5 - true).clamp(min=0).mean() + (0.5 + fake).clamp(min=0).mean()
    value.backward()

    def loss(params):
        q = Adaptor().apply({"params": params["adaptor"]}, x)
        own = {"params": params["discriminator"], "batch_stats": stats}
        rows = jnp.concatenate([q, q + 0.5 * noise])
        scores, _ = Discriminator(HIDDEN).apply(own, rows, jnp.ones(6, bool), mutable="batch_stats")
        labels = jnp.concatenate([jnp.zeros((3, 4, 5)), jnp.ones((3, 4, 5))])
        return 2 * losses.truncated_l1(scores, labels).mean()

    mine, gradients = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(mine, value.item(), rtol=1e-4)
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters()}
    expected = from_torch("simplenet", {**tensors, **theirs}, state).variables["params"]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * max(np.abs(b).max(), 1e-3 * largest)
    with pytest.raises(UserError, match="unknown discriminator.more"):
        from_torch("simplenet", {**tensors, "discriminator.more": np.zeros(1)}, state)


def test_score_and_map_by_hand():
    detector, frozen, state = built(sigma=0.0)
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    levels = backbones.backbone("filter_bank").features({}, image, ("layer2", "layer3"))
    x = np.asarray(ops.patch_embedding(levels, 3, 16, DEPTH), np.float64)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.variables["params"])
    q = x @ p["adaptor"]["layers_0fc"]["kernel"] + p["adaptor"]["layers_0fc"]["bias"]
    d = p["discriminator"]
    h = (q @ d["body_block1_0"]["kernel"] + d["body_block1_0"]["bias"]) / np.sqrt(1 + 1e-5)
    s = -(np.where(h > 0, h, 0.2 * h) @ d["tail"]["kernel"])[..., 0]
    prediction = jax.jit(detector.predict)(state, frozen, image)
    parity.assert_close(prediction.score, s.max((1, 2)), 1e-4)
    place = np.clip((np.arange(32) + 0.5) / 8 - 0.5, 0, 3)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(4)))
    parity.assert_close(prediction.map, np.einsum("ai,bij,cj->bac", weights, s, weights), 1e-4)


def test_each_network_has_its_own_optimizer():
    detector, frozen, state = built(adaptor_rate=0.0, discriminator_rate=1e-3)
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    zeros = np.zeros(2, np.int32)
    batch = Batch(image, zeros, zeros, zeros, zeros, np.ones(2, bool))
    new, _ = jax.jit(detector.phases[0].update)(jax.random.key(0), state, frozen, batch)
    before, after = state.variables["params"], new.variables["params"]
    assert np.array_equal(before["adaptor"]["layers_0fc"]["kernel"], after["adaptor"]["layers_0fc"]["kernel"])
    moved = optax.tree.max(optax.tree.sub(after["discriminator"], before["discriminator"]))
    assert 0.5e-3 < moved < 2e-3
    assert not np.array_equal(
        state.variables["batch_stats"]["body_block1_1"]["mean"], new.variables["batch_stats"]["body_block1_1"]["mean"]
    )


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="noise_std"):
        built(noise_std=0.0)
    with pytest.raises(UserError, match="patch_size must be odd"):
        built(patch_size=2)
