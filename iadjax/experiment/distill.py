"""Distillation of EfficientAD's teachers (Batzner et al., WACV 2024, section 3.1 and algorithm 2)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from iadjax import files, losses, ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.backbone import normalize
from iadjax.backbones.pdn import pdn
from iadjax.cpu.prepared import precompute
from iadjax.detector import Frozen
from iadjax.detectors.families.gradient import init_trained, train_step
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.nn.pdn import PDN
from iadjax.synthesis.source import Source

__all__ = ["distill_pdn", "save_teacher"]

CHANNELS = 384


def distill_pdn(
    backbone: Backbone,
    frozen: Frozen,
    source: Source,
    *,
    name: str = "pdn_small",
    layers: tuple[str, ...] = ("layer2", "layer3"),
    size: int = 256,
    steps: int = 60000,
    batch_size: int = 16,
    statistics_images: int = 10000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
    seed: int = 0,
):
    """Trains a PDN: from an image of `size` it predicts the features that the backbone has of the image at twice the size.

    The target is PatchCore's patch embedding (1024, then 384 dimensions), with zero mean and unit variance in every channel.
    One image in ten is grey.

    Args:
      backbone, frozen: the network to distil, and {"backbone": its variables}; the paper's is Wide ResNet-101-2.
      source: where images come from, see `synthesis.source.image_source`; ImageNet in the paper.
      name: "pdn_small" or "pdn_medium".
      layers: levels of the backbone; each side of the first one's grid is a quarter of `size`.
      size: side of the PDN's input, a multiple of 32.
      steps, batch_size, learning_rate, weight_decay: Adam's, with the L2 term in the gradient.
      statistics_images: number of images for the mean and the variance of the channels.
      seed: of all random numbers.

    Returns:
      The PDN's variables, for the backbone `name`.
    """
    layers = check_layers(backbone, layers)
    frozen = precompute(frozen, "float32")
    module = PDN(name, CHANNELS, padding=True)
    grey = np.array([0.299, 0.587, 0.114], np.float32)

    def draw(*words):
        images = []
        for i in range(batch_size):
            rng = np.random.default_rng((seed, *words, i))
            image = source(rng, (2 * size, 2 * size))
            images.append(np.repeat(image @ grey[:, None], 3, axis=-1) if rng.random() < 0.1 else image)
        return np.stack(images).astype(np.float32)

    @jax.jit
    def embed(frozen, image):
        target = ops.patch_embedding(backbone.features(frozen["backbone"], image, layers), 3, 1024, CHANNELS)
        return ops.resize(target, (size // 4, size // 4))

    optimizer = adam_with_l2(learning_rate, weight_decay)

    @jax.jit
    def update(trained, target, image):
        small = normalize(ops.resize(image, (size, size), antialias=True))

        def objective(variables):
            return losses.mse(module.apply(variables, small), target).mean(), ({}, {})

        return train_step(trained, objective, optimizer)

    batches = -(-statistics_images // batch_size)
    mean = variance = np.zeros(CHANNELS, np.float32)
    with progress.track("statistics", 2 * batches, "batch") as report:
        for i in range(batches):
            mean = mean + (embed(frozen, draw(0, i)).mean((0, 1, 2)) - mean) / (i + 1)
            report(i + 1, 2 * batches)
        for i in range(batches):
            square = ((embed(frozen, draw(0, i)) - mean[None, None, None]) ** 2).mean((0, 1, 2))
            variance = variance + (square - variance) / (i + 1)
            report(batches + i + 1, 2 * batches)
    # a channel that never changes (an adaptive bin of zeros) stays zero
    scale = jnp.sqrt(jnp.maximum(variance, 1e-12))
    trained = init_trained(module.init(jax.random.key(seed), jnp.zeros((1, size, size, 3))), optimizer)
    with progress.track("distil", steps, "step") as report:
        for i in range(steps):
            image = draw(1, i)
            trained, info = update(trained, (embed(frozen, image) - mean[None, None, None]) / scale[None, None, None], image)
            report(i + 1, steps)
    progress.say(f"loss of the last step: {float(info['loss']):.4f} (a teacher that knows nothing has 1)")
    return trained.variables


def save_teacher(name: str, variables, output: Path) -> None:
    """Writes a PDN as safetensors, with PyTorch's names and layout, as `backbone.weights` reads it."""
    naming = pdn(name).weight_name
    tensors = {}
    for path, leaf in flatten_dict(variables).items():
        array = np.asarray(leaf)
        tensors[naming(path)] = np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
    with files.replacing(output) as temporary:
        save_file(tensors, temporary)
