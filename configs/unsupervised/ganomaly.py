"""GANomaly (Akcay et al., ACCV 2018), one model per category; no pretrained weights, no maps.

    python scripts/train.py --config=configs/unsupervised/ganomaly.py:synthetic,category=washer,quick
    python scripts/train.py --config=configs/unsupervised/ganomaly.py:mvtec_ad,category=bottle --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ganomaly.py:mtd --config.data.root=DIR
    python scripts/train.py --config=configs/unsupervised/ganomaly.py:folder --config.data.root=DIR

Published: nothing for these data sets. The paper has MNIST, CIFAR-10 and X-ray images. anomalib's table for mvtec_ad has a mean
image AUROC of 0.421, which is worse than chance. Its variant differs: images outside the range of the decoder, other losses, a
first convolution that pads by 4.

Images are 64 x 64 here and 32 x 32 in the paper, in batches of 64. The authors' 15 epochs are of data sets with thousands of
images. So mvtec_ad takes 1000.

Measured here: docs/benchmarks.md, made by scripts/benchmarks/detectors.py.
"""

from iadjax.config import base_config, finish, parse_arg, quick

# the authors' figures are of other data sets
PUBLISHED = []


def get_config(arg: str = "synthetic"):
    """`arg`: DATASET[,category=NAME][,quick][,KEY=VALUE...], see docs/configs.md."""
    wanted = parse_arg(arg)
    config = base_config("ganomaly", wanted.dataset)
    config.data.update({"resize": 64, "batch_size": 64})
    if wanted.dataset == "mvtec_ad":
        config.detector.epochs = 1000
    if wanted.quick:
        small = {"width": 16, "latent": 16, "learning_rate": 1e-3}
        # one category has few images
        quick(config, small | {"epochs": 100 if wanted.category else 10}, resize=32, batch_size=16)
    return finish(config, wanted)
