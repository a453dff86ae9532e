"""EfficientAD: Nelson's code and anomalib."""

import jax
import numpy as np

from iadjax import backbones
from iadjax.backbones.backbone import normalize
from iadjax.backbones.pdn import published_names
from iadjax.backbones.weights import fill
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student import efficientad as module
from iadjax.nn import pdn as networks
from iadjax.nn.pdn import PDN
from tests.parity import harness
from tests.parity.harness import Card

MEAN, VARIANCE, TRAIN, CALIBRATE = range(4)


def pdn(card, part, name, features, image, padding=False):
    """One of the card's networks by itself: weights by Nelson's numbers."""
    network = PDN(name, features, padding)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    variables = fill(shapes, published_names(name, card.part(f"{part}.")))
    return variables, jax.jit(network.apply)(variables, normalize(image))


def nelson(monkeypatch, card):
    """The detector at the card's 24 channels instead of 384."""
    for each in (module, networks):
        monkeypatch.setattr(each, "CHANNELS", 24)
    monkeypatch.setattr(module, "_jitter", lambda choice, factor, image: image)
    network = PDN("pdn_small", 24)
    small = backbones.backbone("pdn_small")._replace(
        features=lambda variables, image, layers: (network.apply(variables, normalize(image)),)
    )
    teacher = pdn(card, "teacher", "pdn_small", 24, card["image"][:, :64, :64])[0]
    detector = module.efficientad(small, dropout=0.0, weight_decay=0.0)
    frozen = {"backbone": teacher}
    state = harness.empty_state(detector, frozen, 256, validation=2)
    return detector, frozen, from_torch("efficientad", card.without("medium", "padded"), state)


def test_nelson(monkeypatch):
    card = Card("efficientad")
    image = card["image"]
    for part, name, size, padding in (("medium", "pdn_medium", 64, False), ("padded", "pdn_small", 64, True)):
        card.check(part, harness.nchw(pdn(card, part, name, 24, image[:, :size, :size], padding)[1]))
    detector, frozen, state = nelson(monkeypatch, card)
    state, _ = harness.update(detector, state, frozen, harness.batch_of(image), MEAN)
    card.check("teacher_mean", np.asarray(state.mean)[None, :, None, None])
    state, _ = harness.update(detector, state, frozen, harness.batch_of(image), VARIANCE)
    card.check("teacher_std", np.sqrt(state.variance)[None, :, None, None])
    batch = harness.batch_of(image[:1], penalty=card["image_penalty"])
    trained, info = harness.update(detector, state, frozen, batch, TRAIN)
    harness.close(info["loss_st"], card["loss_hard"] + card["loss_penalty"], what="loss_hard + loss_penalty")
    for name in ("loss_ae", "loss_stae", "loss"):
        harness.close(info[name], card[name], what=name)
    card.check_gradients("efficientad", harness.gradients(trained))
    state, _ = harness.update(detector, state, frozen, harness.batch_of(image), CALIBRATE)
    card.check("quantiles", np.asarray(state.quantiles).reshape(-1))
    found = harness.predict(detector, state, frozen, image)
    card.check("map", found.map[:, None])
    card.check("score", found.score)


def test_anomalib(monkeypatch):
    card = Card("anomalib_efficient_ad")
    monkeypatch.setattr(module, "_jitter", lambda choice, factor, image: image)
    backbone = backbones.backbone("pdn_small")
    frozen = {"backbone": backbones.convert(backbone, card.part("teacher."), ("features",))}
    detector = module.efficientad(backbone, dropout=0.0, weight_decay=0.0)
    state = from_torch("efficientad", card.tensors, harness.empty_state(detector, frozen, 256))
    image = card["image"]
    # anomalib normalises the padded maps, so that its frame is not 0: the middle is the same
    maps = np.asarray(harness.predict(detector, state, frozen, image).map)[:, ::4, ::4]
    scale = np.abs(card["map"]).max()
    inner = (slice(None), slice(5, -5), slice(5, -5))
    harness.report("map", np.abs(maps[inner] - card["map"][inner]).max() / scale, harness.OUTPUT)
    harness.close(maps[inner].max(axis=(1, 2)), card["map"][inner].max(axis=(1, 2)), what="score")
    batch = harness.batch_of(image[:1], penalty=image[1:, :, ::-1])
    training = harness.empty_state(detector, frozen, 256)
    training = training._replace(mean=state.mean, variance=state.variance, trained=state.trained)
    new, info = harness.update(detector, training, frozen, batch, TRAIN)
    for name in ("loss_st", "loss_ae", "loss_stae", "loss"):
        harness.close(info[name], card[name], what=name)
    card.check_gradients("efficientad", harness.gradients(new))
