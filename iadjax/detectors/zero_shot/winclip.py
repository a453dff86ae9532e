"""WinCLIP: "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation" (Jeong et al., CVPR 2023, arXiv 2303.14814).

CLIP compares an image, and small windows of it, with texts that describe good and damaged objects. A few normal images, if
there are any, add the distance to the most similar window of theirs.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.backbones.taps import WINDOWS
from iadjax.backbones.tokenizer import tokenize
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.parallel.axis import all_rows

__all__ = ["WinCLIP", "harmonic", "prompts", "winclip"]


class WinCLIP(NamedTuple):
    """What WinCLIP knows.

    Attributes:
      text: `[categories + 1, 2, E]` mean unit embeddings of the normal and the anomalous prompts; the last ones are for images
        of no known category.
      references: patches `[K, h, w, C]` and windows `[K, h', w', E]` of the K normal images, as unit vectors; () without any.
      category: `[K]` int32 of those images, -1 where there is none yet; None without any.
    """

    text: jax.Array
    references: tuple[jax.Array, ...]
    category: jax.Array | None


def winclip(
    backbone: Backbone,
    text: Backbone,
    *,
    windows: Sequence[int] = (2, 3),
    temperature: float = 0.07,
    object_name: str = "",
    normalize_prompts: bool = True,
) -> Detector:
    """Builds WinCLIP.

    Map: probability of the anomalous prompts, harmonic mean over windows; with normal images the mean of it and of half the
    cosine distance to the most similar window; in [0, 1].

    Args:
      backbone: a CLIP vision transformer; ViT-B/16+ at 240 px in the paper.
      text: its text tower, of the same name with "_text".
      windows: sides of the windows in patches.
      temperature: of the softmax over cosine similarities (eq. 1).
      object_name: what the images show, for the prompts; "" is the name of the category.
      normalize_prompts: whether each prompt's embedding is a unit vector before the mean, as in open implementations;
        anomalib takes the mean of the raw ones.

    Raises:
      UserError: an option out of its range, or a network that is not CLIP's.
    """
    check_options("(0, inf)", temperature=temperature)
    sizes = {f"windows{side}": side for side in windows}
    if not set(sizes) <= set(WINDOWS):
        raise UserError(f"detector.windows may have {sorted(WINDOWS.values())}, got {list(windows)}")
    if not {"embedding", *sizes} <= set(backbone.layers) or text.layers != ("embedding",):
        raise UserError(
            f"WinCLIP needs a CLIP network and its text tower, like clip_vitb16plus_240 and clip_vitb16plus_240_text; got "
            f"{backbone.name} and {text.name} (backbone.name, networks.text.name)"
        )
    layers = ("norm", *sizes, "embedding")

    def embed(frozen, image):
        return tuple(ops.unit(level) for level in backbone.features(frozen["backbone"], image, layers))

    def init(key, frozen, spec):
        del key
        names = [object_name or name.replace("_", " ") for name in (*spec.categories, "object")]
        means = _texts(functools.partial(text.features, frozen["text"]), names, normalize_prompts)
        if not spec.num_images:
            return WinCLIP(means, (), None)
        references = tuple(jnp.zeros((spec.num_images, *level.shape[1:])) for level in spec.features[:-1])
        return WinCLIP(means, references, jnp.full(spec.num_images, -1, jnp.int32))

    def update(key, state, frozen, batch):
        """Puts a batch's tokens in the rows of its images."""
        del key, frozen
        levels, index, category = all_rows((batch.features[:-1], jnp.where(batch.valid, batch.index, -1), batch.category))
        # rows beyond the end are dropped
        rows = jnp.where(index < 0, len(state.category), index)
        references = tuple(old.at[rows].set(new, mode="drop") for old, new in zip(state.references, levels, strict=True))
        return state._replace(references=references, category=state.category.at[rows].set(category, mode="drop")), {}

    def phases(spec):
        return (Phase("fit", update, lambda key, state, frozen: state, epochs=1, needs_image=False),) if spec.num_images else ()

    def predict(state, frozen, batch):
        del frozen
        *levels, embedding = batch.features
        patches = levels[0].shape[1:3]
        # -1, no known category, is the last one
        prompt = state.text[batch.category]

        def anomalous(x):
            similarity = jnp.einsum("b...e,bte->b...t", x, prompt, precision="highest")
            return jax.nn.softmax(similarity / temperature)[..., 1]

        # eq. 4 and 5: a harmonic mean over the windows that hold a patch, then over the image and all sizes of windows
        score = anomalous(embedding)
        scales = [jnp.broadcast_to(score[:, None, None], (len(score), *patches))]
        scales += [harmonic(anomalous(level), side) for level, side in zip(levels[1:], sizes.values(), strict=True)]
        found = len(scales) / sum(1 / scale for scale in scales)
        if state.references:
            distances = [_distance(x, y, batch.category, state.category) for x, y in zip(levels, state.references, strict=True)]
            association = [harmonic(d, side) for d, side in zip(distances, (1, *sizes.values()), strict=True)]
            few_shot = sum(association) / len(association)
            found = (found + few_shot) / 2
            score = (score + few_shot.max(axis=(1, 2))) / 2
        return Prediction(score, ops.resize(found[..., None], batch.image.shape[1:3])[..., 0])

    return Detector(init, phases, predict, embed=embed)


def _texts(encode: Callable[[jax.Array], jax.Array], names: Sequence[str], normalize: bool) -> jax.Array:
    """`[names, 2, E]` mean embeddings of the prompts on a good and on a damaged object, as unit vectors."""
    kinds = [np.stack([tokenize(prompts(name)[kind]) for name in names]) for kind in (0, 1)]
    # the tower is causal: what follows the end of the longest text changes nothing
    length = max(np.count_nonzero(ids, axis=-1).max() for ids in kinds)

    def mean(ids):
        features = encode(ids)
        return ops.unit((ops.unit(features) if normalize else features).mean(axis=0))

    return jnp.stack([jax.lax.map(mean, jnp.asarray(ids[..., :length])) for ids in kinds], axis=1)


@functools.lru_cache
def prompts(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences on a good and on a damaged object called `name`: each state in each template."""
    lists = json.loads((Path(__file__).parent / "winclip_prompts.json").read_text())
    normal, anomalous = (
        tuple(template.format(state.format(name)) for state in lists[kind] for template in lists["templates"])
        for kind in ("normal", "anomalous")
    )
    return normal, anomalous


def harmonic(scores: jax.Array, side: int) -> jax.Array:
    """`[B, h - side + 1, w - side + 1]` scores of windows to `[B, h, w]` of patches: the harmonic mean over the windows that
    hold a patch; 0 where one of them is 0."""
    pad = ((0, 0), (side - 1, side - 1), (side - 1, side - 1))
    sums, counts = (
        jax.lax.reduce_window(jnp.pad(x, pad), 0.0, jax.lax.add, (1, side, side), (1, 1, 1), "VALID")
        for x in (1 / scores, jnp.ones_like(scores))
    )
    return counts / sums


def _distance(x: jax.Array, references: jax.Array, category: jax.Array, others: jax.Array) -> jax.Array:
    """Half the cosine distance of `x [B, h, w, C]` to the nearest reference of the same category, or of any for category -1."""
    batch, height, width, depth = x.shape
    references = references.reshape(len(references), -1, depth)

    def nearest(carried, each):
        rows, own = each
        # rounding may take it below 0, which a harmonic mean cannot bear
        distance = jnp.maximum((1 - (x.reshape(-1, depth) @ rows.T).max(axis=1)) / 2, 1e-12)
        seen = (own >= 0) & ((category == own) | (category < 0))
        return jnp.where(seen[:, None, None], jnp.minimum(carried, distance.reshape(batch, height, width)), carried), None

    # no distance exceeds 1
    return jax.lax.scan(nearest, jnp.ones((batch, height, width)), (references, others))[0]
