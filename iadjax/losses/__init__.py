"""Losses of the field, one function each.

Every loss returns one value per image, `[B]`, in the dtype of its input; `mean` averages them over the real rows of a
padded batch. Images and features are NHWC. Cross entropies, the hinge, triplets and NT-Xent are those of `optax.losses`; the
adversarial hinge is `truncated_l1` with th = 1, and the Sinkhorn divergence is `ops.sinkhorn_divergence`.
"""

from iadjax.losses.adversarial import gradient_penalty
from iadjax.losses.distances import cosine_distance, edge_mse, hard_mean, mse, normalized_l2, pseudo_huber
from iadjax.losses.likelihood import kl_normal, negative_elbo, normal_nll
from iadjax.losses.rows import mean, weigh_gradient
from iadjax.losses.scores import deviation, soft_boundary, svdd, truncated_l1
from iadjax.losses.segmentation import dice, focal, focal_of_probabilities
from iadjax.losses.similarity import gms, ms_ssim, ssim

__all__ = [
    "cosine_distance",
    "deviation",
    "dice",
    "edge_mse",
    "focal",
    "focal_of_probabilities",
    "gms",
    "gradient_penalty",
    "hard_mean",
    "kl_normal",
    "mean",
    "ms_ssim",
    "mse",
    "negative_elbo",
    "normal_nll",
    "normalized_l2",
    "pseudo_huber",
    "soft_boundary",
    "ssim",
    "svdd",
    "truncated_l1",
    "weigh_gradient",
]
