"""FastFlow against a PyTorch module written from the paper's description; invertibility and log-determinants by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones, losses
from iadjax.detector import DataSpec
from iadjax.detectors.distribution.fastflow import Flow, Flows, fastflow
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from tests import torch_parity as parity

SIZES = ((8, 6), (4, 5))


def levels(batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, side, side, depth)).astype(np.float32) for side, depth in SIZES]


def torch_flows(conv3x3_only):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, depth, kernel, generator):
            super().__init__()
            self.second = depth // 2
            self.first = depth - self.second
            self.global_scale = nn.Parameter(torch.randn(1, depth, 1, 1, generator=generator) + 9)
            self.global_offset = nn.Parameter(torch.randn(1, depth, 1, 1, generator=generator))
            matrix = torch.eye(depth)[torch.randperm(depth, generator=generator)]
            self.register_buffer("w_perm", matrix[:, :, None, None])
            self.register_buffer("w_perm_inv", matrix.T[:, :, None, None].clone())
            pad = kernel // 2
            first, last = (
                nn.Conv2d(self.first, depth, kernel, padding=pad),
                nn.Conv2d(depth, 2 * self.second, kernel, padding=pad),
            )
            self.subnet = nn.Sequential(first, nn.ReLU(), last)
            with torch.no_grad():
                for parameter in self.subnet.parameters():
                    parameter.mul_(5)

        def forward(self, x):
            a, b = (0.1 * self.subnet(x[:, : self.first])).chunk(2, dim=1)
            s = 2 * torch.tanh(a)
            y = torch.cat([x[:, : self.first], x[:, self.first :] * s.exp() + b], 1)
            scale = 0.1 * nn.functional.softplus(self.global_scale, beta=0.5)
            y = nn.functional.conv2d(y * scale + self.global_offset, self.w_perm)
            return y, s.sum((1, 2, 3)) + x.shape[2] * x.shape[3] * scale.log().sum()

    class Steps(nn.Module):
        def __init__(self, depth, generator):
            super().__init__()
            kernels = [3 if conv3x3_only or i % 2 == 0 else 1 for i in range(3)]
            self.module_list = nn.ModuleList([Block(depth, kernel, generator) for kernel in kernels])

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.norms = nn.ModuleList([nn.LayerNorm([depth, side, side]) for side, depth in SIZES])
            self.nf_flows = nn.ModuleList([Steps(depth, generator) for _, depth in SIZES])
            with torch.no_grad():
                for norm in self.norms:
                    norm.weight.add_(0.1 * torch.randn(norm.weight.shape, generator=generator))
                    norm.bias.add_(0.1 * torch.randn(norm.bias.shape, generator=generator))

        def forward(self, inputs):
            out = []
            for x, norm, flow in zip(inputs, self.norms, self.nf_flows, strict=True):
                x, total = norm(x), 0
                for block in flow.module_list:
                    x, log_det = block(x)
                    total = total + log_det
                out.append((x, total))
            return out

    return Whole()


def state_of(flows, inputs):
    _, _, state = built()
    return state._replace(variables=jax.jit(flows.init)(jax.random.key(0), inputs))


@pytest.mark.parametrize("conv3x3_only", [True, False])
def test_flows_equal_pytorch_and_both_sets_of_names_load(conv3x3_only):
    module = torch_flows(conv3x3_only)
    flows, inputs = Flows((3, conv3x3_only, 1.0, 2.0), True), levels()
    state = state_of(flows, inputs)
    tensors = parity.tensors(module)
    variables = from_torch("fastflow", tensors, state).variables
    anomalib = {f"model.{name.replace('nf_flows.', 'fast_flow_blocks.')}": value for name, value in tensors.items()}
    anomalib["model.feature_extractor.conv1.weight"] = np.zeros(1)
    other = from_torch("fastflow", anomalib, state).variables
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(other), strict=True):
        assert np.array_equal(a, b)
    output = module([parity.to_torch(x) for x in inputs])
    z, log_det = jax.jit(flows.apply)(variables, inputs)
    for ours, ours_det, (theirs, theirs_det) in zip(z, log_det, output, strict=True):
        parity.assert_close(ours, parity.from_torch(theirs), 1e-4)
        parity.assert_close(ours_det, theirs_det.detach(), 1e-4)
    value = sum((0.5 * (x**2).sum((1, 2, 3)) - log).mean() for x, log in output)
    value.backward()

    def loss(params):
        return losses.normal_nll(*flows.apply({**variables, "params": params}, inputs)).mean()

    mine, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
    np.testing.assert_allclose(mine, value.item(), rtol=1e-4)
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters()}
    expected = from_torch("fastflow", {**tensors, **theirs}, state).variables["params"]
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max()
    with pytest.raises(UserError, match="missing norms.0.weight"):
        from_torch("fastflow", {name: value for name, value in tensors.items() if name != "norms.0.weight"}, state)


def random_flow(depth=5, hidden_ratio=0.7):
    flow = Flow(4, False, hidden_ratio, 2.0)
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, depth))
    variables = jax.jit(flow.init)(jax.random.key(0), x)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    noisy = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), variables["params"])
    return flow, {**variables, "params": noisy}, x


def test_inverse_undoes_forward():
    flow, variables, x = random_flow()
    z, log_det = jax.jit(flow.apply)(variables, x)
    assert np.abs(z - x).max() > 0.5
    again, inverse_det = flow.apply(variables, z, inverse=True)
    np.testing.assert_allclose(again, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -inverse_det, rtol=1e-4)


def test_log_determinant_is_that_of_the_jacobian():
    flow, variables, x = random_flow()
    _, log_det = jax.jit(flow.apply)(variables, x)
    for row, expected in zip(x, log_det, strict=True):
        jacobian = jax.jacobian(lambda flat: flow.apply(variables, flat.reshape(1, *x.shape[1:]))[0].ravel())(row.ravel())
        sign, value = np.linalg.slogdet(np.asarray(jacobian, np.float64))
        assert sign != 0
        np.testing.assert_allclose(expected, value, rtol=1e-4)


def test_scale_starts_at_one():
    flow = Flow(1, True, 1.0, 2.0)
    x = jnp.zeros((1, 2, 2, 4))
    variables = jax.jit(flow.init)(jax.random.key(0), x)
    silent = jax.tree.map(jnp.zeros_like, variables["params"])
    silent["module_list_0"]["global_scale"] = variables["params"]["module_list_0"]["global_scale"]
    z, log_det = flow.apply({**variables, "params": silent}, x + jnp.arange(4.0))
    assert sorted(np.asarray(z[0, 0, 0]).round(5)) == [0, 1, 2, 3]
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


def built(**options):
    backbone = backbones.backbone("filter_bank")
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = fastflow(backbone, flow_steps=2, **options)
    return (
        detector,
        frozen,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, DataSpec(4, (32, 32, 3), ("a",))),
    )


def test_map_by_hand():
    detector, frozen, state = built(layers=("layer1", "layer2"))
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    backbone = backbones.backbone("filter_bank")
    z, _ = Flows((2, True, 1.0, 2.0), True).apply(state.variables, parity.features(backbone, {}, image, ("layer1", "layer2")))
    truth = np.zeros((2, 32, 32))
    for latent in z:
        density = np.exp(-0.5 * np.mean(np.asarray(latent, np.float64) ** 2, -1))
        side = density.shape[1]
        place = np.clip((np.arange(32) + 0.5) * side / 32 - 0.5, 0, side - 1)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))
        truth -= np.einsum("ai,bij,cj->bac", weights, density, weights) / 2
    prediction = jax.jit(detector.predict)(state, frozen, image)
    parity.assert_close(prediction.map, truth, 1e-4)
    np.testing.assert_allclose(prediction.score, truth.max((1, 2)), rtol=1e-4)


def test_without_the_norm_there_is_none():
    _, _, state = built(layer_norm=False)
    assert all(name.startswith("nf_flows") for name in state.variables["params"])


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="must be positive"):
        built(clamp=0.0)
