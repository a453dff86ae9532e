"""Stages of `device.py` without a network: neighbours, coreset, smoothing, AU-PRO."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from device_cases import Case, Sizes

from iadjax import metrics, ops

__all__ = ["aupro_cases", "blur_cases", "coreset_cases", "knn_cases"]


def knn_cases(size: Sizes) -> Iterator[Case]:
    number, rows, depth = size.knn
    rng = np.random.default_rng(0)
    queries, bank = (rng.standard_normal((each, depth), np.float32) for each in (number, rows))
    for k in (1, 9):
        search = jax.jit(lambda q, b, k=k: ops.nearest_neighbors(q, b, k)[0])
        yield Case(
            f"k-NN {number} x {depth} against {rows}, k = {k}",
            functools.partial(search, jnp.asarray(queries), jnp.asarray(bank)),
            lambda module, wrap, k=k: module.knn(queries, bank, k, wrap),
            2.0 * number * rows * depth,
            "FLOP",
            "formula",
            "float32 highest",
            1e-4,
        )


def coreset_cases(size: Sizes) -> Iterator[Case]:
    rows, depth, picks = size.coreset
    # clusters behind a rectifier, as features are
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, depth), np.float32)[rng.integers(0, 60, rows)]
    points = np.maximum(points + 0.6 * rng.standard_normal(points.shape, np.float32), 0)
    ours = jnp.asarray(points)

    def missed(ours, theirs):
        # rounding may swap two picks of almost one distance
        return 1 - len(np.intersect1d(ours, theirs[0])) / picks

    yield Case(
        f"coreset {rows} x {depth} to {picks}",
        lambda: ops.k_center_greedy(ours, picks),
        lambda module, wrap: module.coreset(points, picks, wrap),
        2.0 * rows * depth * picks,
        "FLOP",
        "formula",
        "float32 highest",
        0.01,
        difference=missed,
    )


def blur_cases(size: Sizes) -> Iterator[Case]:
    side = size.side // 8
    maps = np.random.default_rng(0).random((size.maps, side, side), np.float32)

    def smooth(maps):
        return [ops.gaussian_blur(ops.resize(maps[..., None], (size.side, size.side))[..., 0])]

    yield Case(
        f"upsampling + blur, {size.maps} maps of {side} to {size.side}",
        functools.partial(jax.jit(smooth), jnp.asarray(maps)),
        lambda module, wrap: module.blur(maps, size.side, wrap),
        4.0 * size.maps * (side**2 + size.side**2),
        "B",
        "formula",
        "copy",
        1e-4,
        size.maps,
    )


def aupro_cases(size: Sizes) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((size.aupro, size.side, size.side), np.float32)
    masks = np.zeros(maps.shape, bool)
    for mask in masks[size.aupro // 4 :]:
        for row, column in rng.integers(0, size.side * 3 // 4, (3, 2)):
            mask[row : row + size.side // 8, column : column + size.side // 6] = True
    maps[masks] += 1
    ours = maps if jax.default_backend() == "cpu" else jnp.asarray(maps)
    yield Case(
        f"AU-PRO of {size.aupro} maps of {size.side}",
        lambda: [metrics.aupro(ours, masks)],
        lambda module, wrap: module.aupro(maps, masks, wrap),
        5.0 * maps.size,
        "B",
        "formula",
        "copy",
        1e-5,
        size.aupro,
    )
