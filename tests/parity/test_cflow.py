"""CFLOW-AD: the authors' code and anomalib."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import backbones
from iadjax.detectors.distribution.cflow import Decoder, cflow
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.flow import position_code
from tests.parity import harness
from tests.parity.harness import Card


def log_likelihoods(state, levels, blocks, condition, soft):
    """What every decoder gives for the positions of its level: z `[B h w, D]`, log |det| and log p / D, `[B h w]`."""
    found = []
    for number, (trained, level) in enumerate(zip(state.decoders, levels, strict=True)):
        rows, height, width, depth = level.shape
        code = jnp.tile(jnp.asarray(position_code(condition, height, width)).reshape(-1, condition), (rows, 1))
        decoder = Decoder(number, blocks, 1.9, soft)
        z, log_det = jax.jit(decoder.apply)(trained.variables, jnp.asarray(level).reshape(-1, depth), code)
        log_p = (np.asarray(log_det) - 0.5 * (np.asarray(z) ** 2).sum(axis=1)) / depth - 0.5 * np.log(2 * np.pi)
        found.append((z, log_det, log_p))
    return found


def with_peak(state, found):
    """Authors and anomalib normalise by the largest likelihood of the images that are scored, which here is a constant."""
    return state._replace(peak=jnp.array([log_p.max() for *_, log_p in found], jnp.float32))


def trained(card, detector, frozen, state):
    new, info = harness.update(detector, state, frozen, harness.batch_of(np.zeros((2, 32, 32, 3), np.float32)))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("cflow", harness.gradients(new))


def test_authors():
    card = Card("cflow")
    levels = [card[f"input/features{i}"].transpose(0, 2, 3, 1) for i in range(2)]
    backbone, frozen = harness.given(levels)
    options = {"coupling_blocks": 3, "condition_dimension": 32}
    detector = cflow(backbone, layers=backbone.layers, **options)
    state = from_torch("cflow", card.tensors, harness.empty_state(detector, frozen, 32))
    found = log_likelihoods(state, levels, 3, 32, True)
    for i, (z, log_det, log_p) in enumerate(found):
        card.check(f"pos_enc{i}", position_code(32, *levels[i].shape[1:3]).transpose(2, 0, 1))
        card.check(f"z{i}", z)
        card.check(f"logdet{i}", log_det)
        card.check(f"logp{i}", log_p)
    image = np.zeros((2, 32, 32, 3), np.float32)
    prediction = harness.predict(detector, with_peak(state, found), frozen, image)
    # their maps begin at the likeliest pixel of all images, which moves no ranking
    ours = np.asarray(prediction.map)
    card.check("map", ours - ours.min())
    card.check("score", np.asarray(prediction.score) - ours.min())
    trained(card, detector, frozen, state)


def test_anomalib():
    card = Card("anomalib_cflow")
    layers = ("layer2", "layer3")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder.feature_extractor."), layers)}
    options = {"coupling_blocks": 2, "condition_dimension": 32, "soft_permutation": False, "fiber_batch": 128}
    detector = cflow(backbone, layers=layers, **options)
    state = from_torch("cflow", card.tensors, harness.empty_state(detector, frozen, 64))
    levels = jax.jit(detector.embed)(frozen, card["image"])
    found = log_likelihoods(state, levels, 2, 32, False)
    for layer, level, (*_, log_p) in zip(layers, levels, found, strict=True):
        harness.close(log_p.reshape(level.shape[:3]), card[f"logp_{layer}"], what=layer)
    prediction = harness.predict(detector, with_peak(state, found), frozen, card["image"])
    ours = np.asarray(prediction.map)
    harness.close(ours - ours.min(), card["map"], what="map")
    # a defect of anomalib: both maxima are those of the batch, so its score of an image changes with the batch; ours does not
    alone = harness.predict(detector, with_peak(state, found), frozen, card["image"][:1])
    harness.close(alone.score, prediction.score[:1], what="score alone")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("cflow", harness.gradients(new))
