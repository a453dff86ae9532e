"""AE-SSIM: residual maps of the known re-implementation, whose SSIM is that of scikit-image."""

from iadjax.detectors.autoencoder.ae import residual
from tests.parity.harness import Card


def test_residuals():
    """The card's images and reconstructions are 8-bit; the border that the code darkens before its threshold is not."""
    card = Card("aessim_residual")
    image, restored = card["image"], card["input/reconstruction_uint8"]
    card.check("map_ssim", residual(image, restored, "ssim", uniform=True))
    card.check("map_l1", residual(image, restored, "l2"))
    one = slice(1, 2)
    card.check("map_ssim_grey", residual(image[..., one], restored[..., one], "ssim", uniform=True))
