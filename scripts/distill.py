"""Distils EfficientAD's teacher from any backbone, for --config.backbone.weights.

python scripts/distill.py --backbone=wide_resnet101_2 --images=IMAGENET --output=teacher_small.safetensors
python scripts/distill.py --backbone=filter_bank --steps=500 --output=teacher.safetensors           # drawn textures
"""

from pathlib import Path

import jax
from absl import flags

from iadjax import backbones
from iadjax.experiment import cli
from iadjax.experiment.distill import distill_pdn, save_teacher
from iadjax.synthesis.source import image_source

_BACKBONE = flags.DEFINE_string("backbone", "wide_resnet101_2", "The network to distil.")
_WEIGHTS = flags.DEFINE_string("weights", "", "Its weights: a safetensors file or a Hub tag; its own default if empty.")
_LAYERS = flags.DEFINE_list("layers", ["layer2", "layer3"], "Its levels.")
_PDN = flags.DEFINE_enum("pdn", "pdn_small", ["pdn_small", "pdn_medium"], "The teacher to make.")
_IMAGES = flags.DEFINE_string("images", "", "Folder of images (ImageNet); textures are drawn if empty.")
_CROP = flags.DEFINE_float("crop", 1.0, "Below 1: random squares, of at least this part of an image's shorter side.")
_SIZE = flags.DEFINE_integer("size", 256, "Side of the teacher's input.")
_STEPS = flags.DEFINE_integer("steps", 60000, "Training steps.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images of a step.", lower_bound=1)
_RATE = flags.DEFINE_float("learning_rate", 1e-4, "Adam's learning rate.", lower_bound=0)
_WARMUP = flags.DEFINE_integer("warmup_steps", 0, "More than none: the rate rises in so many steps, and falls to zero.", 0)
_STATISTICS = flags.DEFINE_integer("statistics_images", 10000, "Images for the channels' statistics.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/distill", "Folder of checkpoints and losses; the same command continues there.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the file's numbers.")
_OUTPUT = flags.DEFINE_string("output", "teacher.safetensors", "File to write.")


def main() -> None:
    backbone = backbones.backbone(_BACKBONE.value)
    layers = backbones.check_layers(backbone, _LAYERS.value)
    frozen = {"backbone": backbones.load_weights(backbone, _WEIGHTS.value, layers, jax.random.key(_SEED.value))}
    variables = distill_pdn(
        backbone,
        frozen,
        image_source(_IMAGES.value, _CROP.value),
        workdir=Path(_WORKDIR.value),
        name=_PDN.value,
        layers=layers,
        size=_SIZE.value,
        steps=_STEPS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_RATE.value,
        warmup_steps=_WARMUP.value,
        statistics_images=_STATISTICS.value,
        seed=_SEED.value,
        images=f"{_IMAGES.value} crop {_CROP.value}" if _CROP.value < 1 else _IMAGES.value,
    )
    save_teacher(_PDN.value, variables, Path(_OUTPUT.value), _DTYPE.value)
    print(f"teacher: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
