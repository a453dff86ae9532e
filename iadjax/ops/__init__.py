"""Operations that several detectors use; all are pure functions."""

from iadjax.ops.channels import per_channel, unit
from iadjax.ops.coreset import johnson_lindenstrauss_dimension, k_center_greedy, sparse_random_projection
from iadjax.ops.distances import squared_distances
from iadjax.ops.false_alarms import log10_region_tests, region_log10_probability
from iadjax.ops.maps import (
    anomaly_map,
    average_patches,
    concatenate_levels,
    level_means,
    mean_of_largest,
    quantile_where,
    spread_patches,
    top_mean,
)
from iadjax.ops.neighbors import BYTE_BUDGET, nearest_neighbors
from iadjax.ops.patches import (
    adaptive_average_pool,
    adaptive_average_pool_1d,
    average_pool,
    block_max,
    block_mean,
    block_repeat,
    block_vectors,
    from_block_vectors,
    patch_embedding,
    unfold,
)
from iadjax.ops.pyramid import pyramid_down, pyramid_up
from iadjax.ops.resample import box_mean, gaussian_blur, kernel_blur, resize, resize_nearest, resize_to_means
from iadjax.ops.rotate import rotate
from iadjax.ops.rows import FAR, padded_rows, rows_at, take_rows, write_rows
from iadjax.ops.sets import largest_cosines, mutual_distances, unit_distance
from iadjax.ops.similarity import gradient_similarities, gradient_similarity, msgms_map, ssim
from iadjax.ops.simplex import simplex_field
from iadjax.ops.tiles import stitched_levels, tile_layout
from iadjax.ops.transport import sinkhorn_divergence

__all__ = [
    "BYTE_BUDGET",
    "FAR",
    "adaptive_average_pool",
    "adaptive_average_pool_1d",
    "anomaly_map",
    "average_patches",
    "average_pool",
    "block_max",
    "block_mean",
    "block_repeat",
    "block_vectors",
    "from_block_vectors",
    "box_mean",
    "concatenate_levels",
    "level_means",
    "gaussian_blur",
    "gradient_similarities",
    "gradient_similarity",
    "johnson_lindenstrauss_dimension",
    "k_center_greedy",
    "kernel_blur",
    "largest_cosines",
    "log10_region_tests",
    "mean_of_largest",
    "msgms_map",
    "mutual_distances",
    "nearest_neighbors",
    "padded_rows",
    "patch_embedding",
    "per_channel",
    "pyramid_down",
    "pyramid_up",
    "quantile_where",
    "region_log10_probability",
    "resize",
    "resize_nearest",
    "resize_to_means",
    "rotate",
    "rows_at",
    "simplex_field",
    "sinkhorn_divergence",
    "sparse_random_projection",
    "spread_patches",
    "squared_distances",
    "ssim",
    "stitched_levels",
    "take_rows",
    "tile_layout",
    "top_mean",
    "unfold",
    "unit",
    "unit_distance",
    "write_rows",
]
