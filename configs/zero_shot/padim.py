"""PaDiM (Defard et al., ICPR 2021) without training images: its Gaussians are those of the unlabelled test images.

    python scripts/train.py --config=configs/zero_shot/padim.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/zero_shot/padim.py:mvtec_ad,category=bottle --config.data.root=DIR

Nothing is published for PaDiM in this setting ("batched zero-shot"); it rests on most test patches being normal.

Measured here: docs/settings.md, made by scripts/benchmarks/settings.py.
"""

from iadjax.config import finish, load_config, parse_arg


def get_config(arg: str = "synthetic"):
    """`arg`: as that of unsupervised/padim.py."""
    wanted = parse_arg(arg)
    config = load_config(f"unsupervised/padim.py:{arg}")
    config.protocol.update({"name": "zero_shot", "test_batch": True})
    return finish(config, wanted)
