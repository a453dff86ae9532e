"""What detectors share that compare features on a grid with their reconstruction, as UniAD's authors do it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.detector import DataSpec, Prediction
from iadjax.detectors.families.schedules import step_decay

__all__ = ["clipped_adamw", "grid_features", "pooled_prediction"]


def grid_features(backbone: Backbone, layers: Sequence[str], stride: int) -> Callable:
    """`Detector.embed` of levels that are resized to one grid and concatenated; `stride`: of the grid, in pixels."""

    def embed(frozen, image):
        grid = tuple(max(1, size // stride) for size in image.shape[1:3])
        levels = backbone.features(frozen["backbone"], image, layers)
        # corners aligned, as in the authors' code
        return jnp.concatenate([ops.resize(level, grid, align_corners=True) for level in levels], axis=-1)

    return embed


def pooled_prediction(distance: jax.Array, size: tuple[int, int], pool_size: int) -> Prediction:
    """Distances `[B, h, w]` as maps; the score is the maximum of the map averaged over windows of `pool_size` pixels."""
    maps = ops.anomaly_map(distance, size, align_corners=True)
    return Prediction(ops.box_mean(maps, pool_size).max(axis=(1, 2)), maps)


def clipped_adamw(
    learning_rate: float, weight_decay: float, clip_norm: float, decay_at: float, epochs: int
) -> Callable[[DataSpec], optax.GradientTransformation]:
    """AdamW of a whole run, by its spec: the rate drops to a tenth after a fraction of the epochs.

    Args:
      learning_rate, weight_decay: AdamW's.
      clip_norm: largest norm of a gradient; 0: it is not clipped.
      decay_at: that fraction.
      epochs: of the run.
    """

    def optimizer(spec):
        rate = step_decay(learning_rate, 0.1, decay_at * epochs * spec.steps_per_epoch)
        adamw = optax.adamw(rate, weight_decay=weight_decay)
        return optax.chain(optax.clip_by_global_norm(clip_norm), adamw) if clip_norm else adamw

    return optimizer
