"""CS-Flow beside the same mathematics in PyTorch calls, by anomalib's and the authors' names of tensors."""

import jax
import numpy as np
import pytest

from iadjax import backbones
from iadjax.detectors.distribution.csflow import Flow, csflow
from iadjax.detectors.pytorch import from_torch, table
from tests.parity import harness
from tests.parity.harness import Card

DEPTH, HIDDEN, BLOCKS = 6, 5, 2


def state_dict():
    """Tensors by anomalib's names."""
    half, tensors = DEPTH // 2, {}
    for k in range(BLOCKS):
        kernel = 5 if k == BLOCKS - 1 else 3
        for number in (1, 2):
            shapes = {f"conv_scale{i}_0": (HIDDEN, half) for i in range(3)}
            others = [f"conv_scale{i}_1" for i in range(3)] + ["up_conv10", "up_conv21", "down_conv01", "down_conv12"]
            shapes |= {name: (2 * half, HIDDEN) for name in others}
            prefix = f"graph.graph.module_list.{2 * k + 1}.cross_convolution{number}."
            for name, (out, into) in shapes.items():
                tensors[f"{prefix}{name}.weight"] = harness.fill(f"{prefix}{name}.weight", (out, into, kernel, kernel))
                tensors[f"{prefix}{name}.bias"] = harness.fill(f"{prefix}{name}.bias", (out,))
            for i in range(3):
                tensors[f"{prefix}gamma{i}"] = 0.5 + harness.fill(f"{prefix}gamma{i}", (1,))
    return tensors


def torch_flow(torch, t, levels):
    """The flow of three scales `[B, C, h, w]`: latent scales and log |det|."""
    functional = torch.nn.functional

    def cross(xs, prefix):
        def conv(x, name, stride=1):
            weight = t[f"{prefix}{name}.weight"]
            return functional.conv2d(x, weight, t[f"{prefix}{name}.bias"], stride, weight.shape[-1] // 2)

        def twice(x):
            return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

        a, b, c = (functional.leaky_relu(conv(x, f"conv_scale{i}_0"), 0.1) for i, x in enumerate(xs))
        first = conv(a, "conv_scale0_1") + conv(twice(b), "up_conv10")
        second = conv(b, "conv_scale1_1") + conv(a, "down_conv01", 2) + conv(twice(c), "up_conv21")
        third = conv(c, "conv_scale2_1") + conv(b, "down_conv12", 2)
        return [y * t[f"{prefix}gamma{i}"] for i, y in enumerate((first, second, third))]

    def moved(xs, outputs):
        half, total, new = DEPTH // 2, 0.0, []
        for x, y in zip(xs, outputs, strict=True):
            log_scale = 3 * 0.636 * torch.atan(y[:, :half] / 3)
            new.append(torch.exp(log_scale) * x + y[:, half:])
            total = total + log_scale.sum((1, 2, 3))
        return new, total

    log_det = 0.0
    for k in range(BLOCKS):
        order = torch.from_numpy(np.random.default_rng(k).permutation(DEPTH))
        levels = [x[:, order] for x in levels]
        firsts, seconds = [x[:, : DEPTH // 2] for x in levels], [x[:, DEPTH // 2 :] for x in levels]
        prefix = f"graph.graph.module_list.{2 * k + 1}.cross_convolution"
        firsts, one = moved(firsts, cross(seconds, f"{prefix}2."))
        seconds, two = moved(seconds, cross(firsts, f"{prefix}1."))
        levels, log_det = [torch.cat(pair, 1) for pair in zip(firsts, seconds, strict=True)], log_det + one + two
    return levels, log_det


@pytest.fixture(scope="module")
def built():
    levels = [
        np.random.default_rng(i).standard_normal((2, side, side, DEPTH)).astype(np.float32) for i, side in enumerate((4, 2, 1))
    ]
    backbone, frozen = harness.given(levels)
    options = {"coupling_blocks": BLOCKS, "hidden": HIDDEN, "weight_decay": 0.0, "clip_norm": 0.0}
    detectors = {}
    for localize in ("finest", "product"):
        detector = csflow(backbone, layer="level0", localize=localize, **options)
        detectors[localize] = detector._replace(embed=lambda frozen, image: tuple(frozen["backbone"].values()))
    tensors = state_dict()
    state = from_torch("csflow", tensors, harness.empty_state(detectors["finest"], frozen, 8))
    return levels, frozen, detectors, tensors, state


def test_latent_scales_scores_losses_and_gradients(built):
    torch = pytest.importorskip("torch")
    levels, frozen, detectors, tensors, state = built
    t = {name: torch.from_numpy(tensor).double().requires_grad_() for name, tensor in tensors.items()}
    theirs, det = torch_flow(torch, t, [torch.from_numpy(level).double().permute(0, 3, 1, 2) for level in levels])
    z, log_det = jax.jit(Flow(BLOCKS, HIDDEN, 3.0).apply)(state.variables, levels)
    for ours, other in zip(z, theirs, strict=True):
        harness.close(harness.nchw(ours), other.detach().numpy(), what="z")
    harness.close(log_det, det.detach().numpy(), what="log det")
    flat = torch.cat([each.flatten(1) for each in theirs], 1)
    # a defect of anomalib: it subtracts the log |det| of the whole batch from each image; here every image has its own
    loss = ((0.5 * (flat**2).sum(1) - det) / flat.shape[1]).mean()
    loss.backward()
    image = np.zeros((2, 16, 16, 3), np.float32)
    new, info = harness.update(detectors["finest"], state, frozen, harness.batch_of(image))
    harness.close(info["loss"], loss.item(), what="loss")
    expected = from_torch("csflow", {name: each.grad.numpy() for name, each in t.items()}, state).variables["params"]
    for ours, other in zip(*map(jax.tree.leaves, (harness.gradients(new), expected)), strict=True):
        harness.close(ours, other, harness.GRADIENT, "gradient")
    found = {name: harness.predict(detector, state, frozen, image) for name, detector in detectors.items()}
    harness.close(found["finest"].score, (flat**2 / 2).mean(1).detach().numpy(), what="score")
    maps = [
        torch.nn.functional.interpolate((each**2).mean(1, keepdim=True), size=16, mode="bilinear")[:, 0].detach().numpy()
        for each in theirs
    ]
    harness.close(found["finest"].map, maps[0], what="map")
    harness.close(found["product"].map, maps[0] * maps[1] * maps[2], what="product of maps")


def test_inverse_undoes_the_flow(built):
    """Authors and anomalib read the wrong scales in their inverse, so it is no reference."""
    levels, *_, state = built
    flow = Flow(BLOCKS, HIDDEN, 3.0)
    z, log_det = jax.jit(flow.apply)(state.variables, levels)
    again, back = flow.apply(state.variables, z, inverse=True)
    for x, y, other in zip(levels, again, z, strict=True):
        assert np.abs(other - x).max() > 0.1
        np.testing.assert_allclose(y, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -np.asarray(back), rtol=1e-4, atol=1e-4)


def test_names_and_permutations_of_the_authors(built):
    *_, tensors, state = built
    theirs = {}
    for name, tensor in tensors.items():
        _, _, _, number, network, rest = name.split(".", 5)
        theirs[f"module_list.{int(number) + 3}.s{network[-1]}.{rest}"] = tensor
    other = from_torch("csflow", theirs, state).variables
    assert all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (other["params"], state.variables["params"])), strict=True)
    )
    seeded = np.random.RandomState(1)
    for scale in range(3):
        np.testing.assert_array_equal(other["constants"]["module_list_2"][f"permutation_{scale}"], seeded.permutation(DEPTH))
    assert set(table("csflow").prepare(tensors)) - set(tensors) == {
        f"graph.graph.module_list.{2 * k}.permutation.{i}" for k in range(BLOCKS) for i in range(3)
    }


@pytest.mark.slow
def test_anomalib():
    """With its EfficientNet-B5, operation by operation: compiled as a whole, three sizes of it take a minute.

    anomalib's file holds the network twice, and its second copy is what runs.
    """
    card = Card("anomalib_csflow")
    backbone = backbones.backbone("efficientnet_b5_symmetric")
    tensors = card.part("feature_extractor.feature_extractor.feature_extractor.")
    frozen = {"backbone": backbones.convert(backbone, tensors, ("stage6",))}
    options = {"coupling_blocks": 2, "hidden": 16, "weight_decay": 0.0, "clip_norm": 0.0, "localize": "product"}
    detector = csflow(backbone, **options)
    with jax.disable_jit():
        features = tuple(np.asarray(level) for level in detector.embed(frozen, card["image"]))
    levels, given = harness.given(features)
    detector = csflow(levels, layer="level0", **options)
    detector = detector._replace(embed=lambda frozen, image: tuple(frozen["backbone"].values()))
    state = from_torch("csflow", card.tensors, harness.empty_state(detector, given, 128))
    z, log_det = jax.jit(Flow(2, 16, 3.0).apply)(state.variables, features)
    for i, level in enumerate(z):
        harness.close(harness.nchw(level)[:, ::4], card[f"z{i}"], what=f"z{i}")
    harness.close(log_det, card["logdet"][:, 0], what="log det")
    found = harness.predict(detector, state, given, card["image"])
    harness.close(found.score, card["score"], what="score")
    stride = int(card["map_stride"])
    harness.close(found.map[:, ::stride, ::stride], card["map"], what="map")
    new, info = harness.update(detector, state, given, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("csflow", harness.gradients(new))
