"""DSR: the authors' code and anomalib."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.cpu.dispatch import plain
from iadjax.detectors.autoencoder import dsr as module
from iadjax.detectors.autoencoder.dsr import dsr
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.quantized import DiscreteAutoencoder
from iadjax.nn.restoration import Restoration
from tests.parity import harness
from tests.parity.harness import Card

pytestmark = pytest.mark.slow

# three chained networks of instance norms multiply rounding: anomalib in float32 and in float64 differ by 8e-5
MAP = 5e-4


def built(name, **options):
    card = Card(name)
    detector = dsr(codes=64, layers=2, **options)
    return card, detector, from_torch("dsr", card.tensors, harness.empty_state(detector, {}, 64))


def test_the_discrete_autoencoder_loads_alone():
    """The authors publish it so; the other networks are kept."""
    card, detector = Card("dsr"), dsr(codes=64, dimension=16, width=16, hidden=8)
    state = harness.empty_state(detector, {}, 64)
    found = from_torch("dsr", {name: x for name, x in card.tensors.items() if name.startswith("vq.")}, state)
    kernel = card.tensors["vq._decoder_b._conv_1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found.discrete.variables["params"]["decoder_b"]["conv_1"]["kernel"], kernel)
    assert found.restoring is state.restoring and found.refining is state.refining


def test_authors(monkeypatch):
    size = {"dimension": 16, "width": 16, "hidden": 8}
    card, detector, state = built("dsr", **size)
    autoencoder = DiscreteAutoencoder(16, 2, 8, 64, 16)
    embeddings = [state.discrete.variables["codebook"][name]["embedding"] for name in ("vq_vae_top", "vq_vae_bot")]

    @jax.jit
    def program(state, image):
        def call(method, *args):
            return autoencoder.apply(state.discrete.variables, *args, method=method)

        features, z_low = call("low", image)
        low, high = call("encode", image)
        network = Restoration(16, 16, 2, 8, 64, 64)
        restricted = network.apply(state.restoring.variables, low, high, method="restrict")
        codes = call("quantize_low", restricted[0]), call("quantize_high", restricted[1])
        shown = network.apply(state.restoring.variables, call("joined", *codes), method="image")
        mask = network.apply(state.restoring.variables, shown, call("decode", low, high), method="mask")
        z_high = call("high", features, low)
        return features, z_low, z_high, low, high, call("decode", low, high), restricted, shown, jax.nn.softmax(mask)[..., 1]

    with plain():
        features, z_low, z_high, low, high, general, restricted, shown, mask = program(state, jnp.asarray(card["image"]))
    card.check("encoder_b", harness.nchw(features))
    card.check("z_top", harness.nchw(z_low))
    card.check("z_bot", harness.nchw(z_high))
    for name, found, embedding in zip(("top", "bot"), (low, high), embeddings, strict=True):
        codes = np.argmin(((np.asarray(found)[..., None, :] - np.asarray(embedding)) ** 2).sum(-1), -1)
        np.testing.assert_array_equal(codes.ravel(), card.arrays[f"out/codes_{name}"])
    card.check("general_reconstruction", harness.nchw(general))
    card.check("sub_lo", harness.nchw(restricted[0]))
    card.check("sub_hi", harness.nchw(restricted[1]))
    card.check("object_reconstruction", harness.nchw(shown))
    card.check("mask", mask)
    found = harness.predict(detector, state, {}, card["image"])
    card.check("map", found.map, MAP)
    card.check("score", found.score)

    def disturbed(key, discrete, codebook, image, mask, min_strength):
        """The card's anomalies on both levels; it replaces codes of the clean image."""
        low, high = discrete("encode", image)
        masks = [ops.block_max(mask[..., None], side) for side in (8, 4)]
        drawn = [
            embedding[card.arrays[f"input/codes_{name}"]] for embedding, name in zip(embeddings, ("lo", "hi"), strict=True)
        ]
        pairs = zip(masks, drawn, (low, high), strict=True)
        shown = ops.block_repeat(masks[0], 8)[..., 0].astype(jnp.int32)
        return tuple(jnp.where(mask > 0, other, code) for mask, other, code in pairs), (low, high), shown

    monkeypatch.setattr(module, "disturbed_levels", disturbed)
    mask = card["input/mask"][:, 0].astype(np.uint8)
    new, info = harness.update(detector, state, {}, harness.batch_of(card["image"], original=card["image"], mask=mask), phase=1)
    names = {"low": "loss_feat_lo", "high": "loss_feat_hi", "focal": "loss_focal"}
    for ours, theirs in names.items():
        harness.close(info[f"loss_{ours}"], card[theirs], what=theirs)
    harness.close(info["loss_image"], 10 * card["loss_image"], what="loss_image")
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("dsr", {"restoring": harness.gradients(new.restoring)})


def test_anomalib(monkeypatch):
    """Its focal losses give normal pixels the weight 0 and take a softmax twice; the card has their values without both."""
    card, detector, state = built("anomalib_dsr", dimension=32, width=32, hidden=16)
    found = harness.predict(detector, state, {}, card["image"])
    harness.close(found.map, card["map"], MAP, what="map")
    harness.close(found.score, card["score"], what="score")
    images = {"original": card["image"], "augmented": card["augmented"]}
    batch = harness.batch_of(card["image"], **images, mask=np.zeros_like(card["mask"]))
    new, info = harness.update(detector, state, {}, batch, phase=1)
    harness.close(info["loss"] - info["loss_focal"], card["loss_second"], what="loss_second")
    harness.close(info["loss_focal"], card["focal_second_unweighted"], what="focal_second")
    _, info = harness.update(detector, state, {}, batch._replace(extra={**images, "mask": card["mask"]}), phase=2)
    harness.close(info["loss"], card["focal_third_unweighted"], what="focal_third")
    # the gradient of the upsampling module is one of anomalib's focal loss
    part = {name: x for name, x in card.arrays.items() if name.startswith("grad/") and "upsampling" not in name}
    monkeypatch.setattr(card, "arrays", part)
    card.check_gradients("dsr", {"restoring": harness.gradients(new.restoring)})
