"""Distillation of EfficientAD's teachers (Batzner et al., WACV 2024, section 3.1 and algorithm 2)."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from iadjax import files, losses, ops, progress
from iadjax.backbones import Backbone, check_layers, content_hash
from iadjax.backbones.backbone import normalize
from iadjax.backbones.pdn import pdn
from iadjax.cpu.prepared import precompute
from iadjax.detector import DataSpec, Frozen
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.experiment import checkpoint
from iadjax.experiment.log import Log
from iadjax.experiment.loop import Stopped, signals
from iadjax.nn.pdn import PDN
from iadjax.synthesis.source import Source

__all__ = ["distill_pdn", "save_teacher"]

CHANNELS = 384
# batches that are drawn ahead of the one in use
_AHEAD = 3


class Distillation(NamedTuple):
    """A teacher under training.

    Attributes:
      trained: the PDN.
      mean, scale: of the channels of the targets, `[384]`.
    """

    trained: Trained
    mean: jax.Array
    scale: jax.Array


def distill_pdn(
    backbone: Backbone,
    frozen: Frozen,
    source: Source,
    *,
    workdir: Path,
    name: str = "pdn_small",
    layers: tuple[str, ...] = ("layer2", "layer3"),
    size: int = 256,
    steps: int = 60000,
    batch_size: int = 16,
    statistics_images: int = 10000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
    warmup_steps: int = 0,
    seed: int = 0,
    images: str = "",
    checkpoint_every: int = 500,
):
    """Trains a PDN: from an image of `size` it predicts the features that the backbone has of the image at twice the size.

    The target is PatchCore's patch embedding (1024, then 384 dimensions), with zero mean and unit variance in every channel.
    One image in ten is grey. A later call goes on from the last checkpoint in `workdir`; the result has the same bytes.

    Args:
      backbone, frozen: the network to distil, and {"backbone": its variables}; the paper's is Wide ResNet-101-2.
      source: where images come from, see `synthesis.source.image_source`; ImageNet in the paper.
      workdir: folder of the checkpoints and of the losses (`log.jsonl`).
      name: "pdn_small" or "pdn_medium".
      layers: levels of the backbone; each side of the first one's grid is a quarter of `size`.
      size: side of the PDN's input, a multiple of 32.
      steps, batch_size, learning_rate, weight_decay: Adam's, with the L2 term in the gradient.
      statistics_images: number of images for the mean and the variance of the channels.
      warmup_steps: with more than none, the rate rises to `learning_rate` in that many steps and falls to zero as a cosine. It
        is constant in the paper.
      seed: of all random numbers.
      images: what the source is; only compared with that of a checkpoint.
      checkpoint_every: steps between checkpoints.

    Returns:
      The PDN's variables, for the backbone `name`.

    Raises:
      Stopped: SIGTERM or Ctrl-C came; a checkpoint was written.
      UserError: the workdir belongs to another distillation, and the difference is named, or has gone more steps.
    """
    layers = check_layers(backbone, layers)
    identity = {
        "config": {
            "pdn": name,
            "layers": list(layers),
            "size": size,
            "batch_size": batch_size,
            "statistics_images": statistics_images,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            # a schedule that falls to zero depends on its end
            "schedule": [warmup_steps, steps] if warmup_steps else [],
            "seed": seed,
            "images": images,
        },
        "weights": {"backbone": {"name": backbone.name, "weights": "", "hash": content_hash(frozen["backbone"])}},
        "carried": False,
    }
    frozen = precompute(frozen, "float32")
    module = PDN(name, CHANNELS, padding=True)
    grey = np.array([0.299, 0.587, 0.114], np.float32)

    def draw(words):
        rng = np.random.default_rng((seed, *words))
        image = source(rng, (2 * size, 2 * size))
        return (np.repeat(image @ grey[:, None], 3, axis=-1) if rng.random() < 0.1 else image).astype(np.float32)

    def batches(salt, first, last):
        return _drawn(draw, ([(salt, number, i) for i in range(batch_size)] for number in range(first, last)))

    @jax.jit
    def embed(frozen, image):
        target = ops.patch_embedding(backbone.features(frozen["backbone"], image, layers), 3, 1024, CHANNELS)
        return ops.resize(target, (size // 4, size // 4))

    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, steps) if warmup_steps else learning_rate
    optimizer = adam_with_l2(rate, weight_decay)

    @jax.jit
    def update(state, target, image):
        small = normalize(ops.resize(image, (size, size), antialias=True))
        target = (target - state.mean[None, None, None]) / state.scale[None, None, None]

        def objective(variables):
            return losses.mse(module.apply(variables, small), target).mean(), ({}, {})

        trained, info = train_step(state.trained, objective, optimizer)
        return state._replace(trained=trained), info

    def start(key):
        trained = init_trained(module.init(key, jnp.zeros((1, size, size, 3))), optimizer)
        return Distillation(trained, jnp.zeros(CHANNELS), jnp.zeros(CHANNELS))

    checkpoints, begun, step = workdir / "checkpoints", checkpoint.latest(workdir / "checkpoints"), 0
    if begun is None:
        number = -(-statistics_images // batch_size)
        mean, scale = _statistics(lambda: (embed(frozen, image) for image in batches(0, 0, number)), number)
        state = start(jax.random.key(seed))._replace(mean=mean, scale=scale)
    else:
        stored = checkpoint.read(begun)
        state = checkpoint.restore(begun, stored, jax.eval_shape(start, jax.random.key(seed)), identity)
        step = stored["position"].step
        if step > steps:
            raise UserError(f"{begun} has gone {step} steps, more than the {steps} that are asked for; give another workdir")
    spec = DataSpec(0, (size, size, 3), ())
    with signals() as stop, Log(workdir, step) as log, progress.track("distil", steps, "step") as report:
        for number, image in enumerate(batches(1, step, steps), start=step + 1):
            state, info = update(state, embed(frozen, image), image)
            log.write(number, "distil", 0, info)
            report(number, steps)
            if stop.is_set() or number % checkpoint_every == 0 or number == steps:
                log.flush()
                checkpoint.save(checkpoints, state, checkpoint.Position(step=number), identity, spec)
            if stop.is_set() and number < steps:
                raise Stopped(f"stopped after step {number}; a checkpoint was written, the same command continues")
    progress.say(f"losses (a teacher that knows nothing has 1): {workdir / 'log.jsonl'}")
    return state.trained.variables


def _drawn(draw: Callable[[tuple[int, ...]], np.ndarray], batches: Iterable[list[tuple[int, ...]]]) -> Iterator[np.ndarray]:
    """`[B, H, W, 3]` of each batch; threads draw the images, a few batches ahead."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for words in batches:
                waiting.append([pool.submit(draw, each) for each in words])
                if len(waiting) > _AHEAD:
                    yield np.stack([each.result() for each in waiting.popleft()])
            while waiting:
                yield np.stack([each.result() for each in waiting.popleft()])
        finally:
            # what was drawn ahead is not needed where the caller stops early
            pool.shutdown(wait=False, cancel_futures=True)


def _statistics(targets: Callable[[], Iterator[jax.Array]], batches: int) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of every channel of what `targets` yields, in two passes over `batches` batches."""
    mean = variance = jnp.zeros(CHANNELS)
    with progress.track("statistics", 2 * batches, "batch") as report:
        for i, target in enumerate(targets()):
            mean = mean + (target.mean((0, 1, 2)) - mean) / (i + 1)
            report(i + 1, 2 * batches)
        for i, target in enumerate(targets()):
            square = ((target - mean[None, None, None]) ** 2).mean((0, 1, 2))
            variance = variance + (square - variance) / (i + 1)
            report(batches + i + 1, 2 * batches)
    # a channel that never changes (an adaptive bin of zeros) stays zero
    return mean, jnp.sqrt(jnp.maximum(variance, 1e-12))


def save_teacher(name: str, variables, output: Path, dtype: str = "float32") -> None:
    """Writes a PDN as safetensors, with PyTorch's names and layout, as `backbone.weights` reads it.

    Args:
      name: "pdn_small" or "pdn_medium".
      variables: of `distill_pdn`.
      output: the file.
      dtype: "float32", or "bfloat16" for half the bytes.
    """
    naming = pdn(name).weight_name
    tensors = {}
    for path, leaf in flatten_dict(variables).items():
        array = np.asarray(leaf).astype(jnp.dtype(dtype))
        tensors[naming(path)] = np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
    with files.replacing(output) as temporary:
        save_file(tensors, temporary)
