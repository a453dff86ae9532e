"""What detectors share that restore an image and segment where it differs from the given one, as DRAEM does."""

import jax

from iadjax import losses, ops
from iadjax.detector import Prediction

__all__ = ["restoring_and_segmenting", "segmented"]


def restoring_and_segmenting(
    restored: jax.Array, original: jax.Array, logits: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
    """The losses `[B]` of DRAEM (Zavrtanik et al., ICCV 2021, eq. 1 and 5): L2, SSIM and the focal loss.

    Args:
      restored, original: `[B, H, W, C]`.
      logits: `[B, H, W, 2]`, normal and anomalous.
      mask: `[B, H, W]`, 1 inside of anomalies.
    """
    return {
        "loss_l2": losses.mse(restored, original),
        "loss_ssim": losses.ssim(restored, original),
        "loss_segment": losses.focal(logits, mask),
    }


def segmented(logits: jax.Array, pool_size: int) -> Prediction:
    """Probabilities of the second class of `[B, H, W, 2]`, and the maximum of their mean over windows (eq. 6)."""
    maps = jax.nn.softmax(logits)[..., 1]
    return Prediction(ops.box_mean(maps, pool_size, pool_size // 2).max(axis=(1, 2)), maps)
