"""AnomalyCLIP: "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection" (Zhou et al., ICLR 2024, arXiv
2310.18961).

Two prompts, "object" and "damaged object", begin with learned tokens. They are trained on the labelled images of one data set
and serve for images of any other.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone
from iadjax.backbones.tokenizer import tokenize
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError

__all__ = ["anomalyclip", "prompt_ids"]


def anomalyclip(
    backbone: Backbone,
    text: Backbone,
    *,
    blocks: Sequence[int] = (24,),
    prompt_length: int = 12,
    depth: int = 9,
    deep_length: int = 4,
    temperature: float = 0.07,
    pixel_weight: float = 4.0,
    epochs: int = 15,
    learning_rate: float = 1e-3,
    sigma: float = 4.0,
) -> Detector:
    """Builds AnomalyCLIP.

    Map: probability of "damaged object", summed over the blocks, smoothed.

    Args:
      backbone: a CLIP vision transformer; ViT-L/14 of 336 px in the paper, whose authors resize the positions bilinearly
        ("clip_vitl14_336_bilinear").
      text: its text tower.
      blocks: whose patch tokens are compared with the prompts, on the path with value-value attention (DPAM, section 3.3).
        The authors' scripts have the last one; their code's default is 6, 12, 18, 24.
      prompt_length: E, learned tokens at the beginning of both prompts.
      depth, deep_length: before each of the blocks 2 to `depth` of the text tower, `deep_length` learned tokens take the
        place of the first ones (section 3.2). The authors round them to float16; here they stay float32.
      temperature: of the softmax over cosine similarities.
      pixel_weight: lambda of eq. 2.
      epochs, learning_rate: Adam's, with beta1 = 0.5.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, networks that are not CLIP's, or no labelled images to train on.
    """
    check_options("[1, inf)", prompt_length=prompt_length, depth=depth, deep_length=deep_length, epochs=epochs)
    check_options("(0, inf)", temperature=temperature, learning_rate=learning_rate)
    check_options("[0, inf)", pixel_weight=pixel_weight, sigma=sigma)
    # the image's own embedding is that of the usual path, without the last norm, as in the authors' code
    last = max((int(name[5:]) for name in backbone.layers if name[5:].isdigit()), default=0)
    # before the path with value-value attention begins, there is the usual one alone
    paths = ["value.norm" if f"block{i}.value" in backbone.layers else "norm" for i in blocks]
    layers = (f"block{last}.projected.class", *(f"block{i}.{path}.projected" for i, path in zip(blocks, paths, strict=True)))
    if not blocks or not set(layers) <= set(backbone.layers) or text.layers != ("embedding",):
        raise UserError(
            f"AnomalyCLIP needs a CLIP network, its text tower and blocks of the former, like clip_vitl14_336_bilinear, "
            f"clip_vitl14_336_text and [24]; got {backbone.name}, {text.name} and {list(blocks)} (backbone.name, "
            "networks.text.name, detector.blocks)"
        )
    ids = prompt_ids(prompt_length)

    def embed(frozen, image):
        return tuple(ops.unit(level) for level in backbone.features(frozen["backbone"], image, layers))

    def init_variables(key, frozen, spec):
        if not spec.num_images:
            raise UserError("AnomalyCLIP is trained on another data set; name it with protocol.source and protocol.source_root")
        width = frozen["text"]["params"]["token_embedding"].shape[1]
        shapes = {"ctx_pos": (prompt_length, width), "ctx_neg": (prompt_length, width)}
        shapes |= {f"compound_prompts_text_{i}": (deep_length, width) for i in range(depth - 1)}
        keys = jax.random.split(key, len(shapes))
        drawn = zip(keys, shapes.items(), strict=True)
        return {"params": {name: 0.02 * jax.random.normal(each, shape) for each, (name, shape) in drawn}}

    def texts(variables, frozen):
        """g, the unit embeddings of both prompts, `[2, E]`."""
        params = variables["params"]
        prompts = jnp.stack([params["ctx_pos"], params["ctx_neg"]])
        deep = [params[f"compound_prompts_text_{i}"] for i in range(depth - 1)]
        return ops.unit(text.features(frozen["text"], ids, prompts, deep))

    def logits(level, g):
        return jnp.einsum("b...e,te->b...t", level, g, precision="highest") / temperature

    def loss(key, variables, frozen, batch):
        del key
        g = texts(variables, frozen)
        embedding, *levels = batch.features
        image = -jnp.take_along_axis(jax.nn.log_softmax(logits(embedding, g)), batch.label[:, None], axis=1)[:, 0]
        pixel = jnp.zeros_like(image)
        for level in levels:
            p = ops.resize(jax.nn.softmax(logits(level, g)), batch.mask.shape[1:])
            pixel += losses.focal_of_probabilities(p, batch.mask)
            pixel += losses.dice(p[..., 1], batch.mask) + losses.dice(p[..., 0], 1 - batch.mask)
        # eq. 2
        parts = {"image_loss": losses.mean(image, batch.valid), "pixel_loss": losses.mean(pixel, batch.valid)}
        return parts["image_loss"] + pixel_weight * parts["pixel_loss"], ({}, parts)

    def predict(g, frozen, batch):
        del frozen
        embedding, *levels = batch.features
        anomalous = sum(jax.nn.softmax(logits(level, g))[..., 1] for level in levels)
        return Prediction(jax.nn.softmax(logits(embedding, g))[:, 1], ops.anomaly_map(anomalous, batch.image.shape[1:3], sigma))

    return gradient(
        init_variables,
        loss,
        predict,
        lambda spec: optax.adam(learning_rate, b1=0.5, b2=0.999),
        embed=embed,
        # the prompts do not change any more
        precompute=texts,
        epochs=epochs,
        needs_image=True,
        labelled=True,
    )


def prompt_ids(length: int) -> np.ndarray:
    """`[2, L]` int32 ids of "X ... X object." and "X ... X damaged object.", `length` times X, up to the longer one's end."""
    ids = tokenize([" ".join(["X"] * length) + f" {name}." for name in ("object", "damaged object")])
    # the tower is causal: what follows the end changes nothing
    return ids[:, : np.count_nonzero(ids, axis=1).max()]
