"""DFR: the authors' levels of VGG-19 with reflected borders, features, autoencoder, maps, loss and gradients."""

import pytest

from iadjax import backbones
from iadjax.detectors.autoencoder.dfr import FeatureAutoencoder, dfr
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card, nchw

LAYERS = ("relu1_1", "relu2_2", "relu3_2", "relu3_4")
# positions of torchvision's layers
POSITIONS = {"1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14, "3_4": 16}


@pytest.fixture(scope="module")
def built():
    card = Card("dfr")
    backbone = backbones.backbone("vgg19_reflect")
    weights = {
        f"features.{POSITIONS[name.split('.')[0].removeprefix('conv')]}.{name.split('.')[1]}": tensor
        for name, tensor in card.part("vgg.").items()
    }
    frozen = {"backbone": backbones.convert(backbone, weights, LAYERS)}
    detector = dfr(backbone, layers=LAYERS, map_size=64, latent=20)
    return card, backbone, frozen, detector, from_torch("dfr", card.tensors, harness.empty_state(detector, frozen, 64))


def test_levels_and_maps(built):
    card, backbone, frozen, detector, state = built
    for name, level in zip(LAYERS, backbone.features(frozen["backbone"], card["image"], LAYERS), strict=True):
        card.check(name, nchw(level))
    features = detector.embed(frozen, card["image"])
    card.check("features", nchw(features))
    restored = FeatureAutoencoder(20).apply(state.variables, features)
    card.check("reconstruction", nchw(restored))
    card.check("energy", ((restored - features) ** 2).mean(axis=-1))
    card.check("map", harness.predict(detector, state, frozen, card["image"]).map)


def test_loss_and_gradients(built):
    card, _, frozen, detector, state = built
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("dfr", harness.gradients(new))
