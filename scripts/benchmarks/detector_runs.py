"""The shortened runs of `detectors.py`: a config and its overrides for each detector and data set."""

from typing import Any, NamedTuple

__all__ = ["BENCHMARKS", "SETS", "Benchmark", "overrides"]

SETS = ("synthetic", "hazelnut_toy", "mtd_300")


class Benchmark(NamedTuple):
    """One row of the table.

    Attributes:
      config: the config file, below configs/.
      real: overrides on real images; the quick form of the config runs on synthetic ones as it is.
      hazelnut, mtd: further ones on each.
      pretrained: whether the backbone takes ResNet-18's weights.
    """

    config: str
    real: dict[str, Any] = {}
    hazelnut: dict[str, Any] = {}
    mtd: dict[str, Any] = {}
    pretrained: bool = True


BENCHMARKS = {
    "adtr": Benchmark(
        "unsupervised/adtr.py",
        {"detector.layers": ("layer1", "layer2", "layer3"), "data.batch_size": 8, "detector.learning_rate": 4e-4},
        {"detector.epochs": 40},
        {"detector.epochs": 10},
    ),
    "ae": Benchmark(
        "unsupervised/ae.py",
        {"detector.latent": 100, "detector.learning_rate": 1e-3, "data.batch_size": 8},
        {"detector.steps": 300, "detector.crops": 2},
        {"detector.steps": 300, "detector.crops": 2},
        pretrained=False,
    ),
    "anoddpm": Benchmark(
        "unsupervised/anoddpm.py",
        {"data.resize": 64, "data.batch_size": 8, "detector.width": 32, "detector.sampling_steps": 25},
        {"detector.steps": 1000},
        {"detector.steps": 1000},
        pretrained=False,
    ),
    "anomalydino": Benchmark(
        "few_shot/anomalydino.py", {"protocol.num_shots": 4, "detector.layers": ("layer2", "layer3")}, {"detector.rotations": 8}
    ),
    "ast": Benchmark(
        "unsupervised/ast.py",
        {"detector.layer": "layer3", "detector.student_hidden": 128, "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 3},
    ),
    "cdo": Benchmark(
        "unsupervised/cdo.py",
        {"data.batch_size": 8, "detector.layers": ("layer1", "layer2", "layer3"), "detector.learning_rate": 1e-3},
        {"detector.epochs": 12},
        {"detector.epochs": 3},
    ),
    "cfa": Benchmark(
        "unsupervised/cfa.py",
        {"data.crop": 0},
        {"detector.epochs": 10},
        {"detector.epochs": 2},
    ),
    "cflow": Benchmark(
        "unsupervised/cflow.py",
        {"detector.layers": ("layer2", "layer3"), "detector.meta_epochs": 4, "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 4},
    ),
    "csflow": Benchmark(
        "unsupervised/csflow.py",
        {"detector.layer": "layer3", "detector.hidden": 128, "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "cutpaste": Benchmark(
        "unsupervised/cutpaste.py",
        {"detector.layers": ("layer3",), "detector.patch": 64, "detector.stride": 16, "data.batch_size": 16},
        {"detector.steps": 100},
        {"detector.steps": 60},
    ),
    "daad": Benchmark(
        "unsupervised/daad.py",
        {"data.resize": 128, "data.batch_size": 8, "detector.width": 32, "detector.learning_rate": 1e-3},
        {"detector.epochs": 60},
        {"detector.epochs": 15},
        pretrained=False,
    ),
    "ddad": Benchmark(
        "unsupervised/ddad.py",
        {"data.resize": 64, "data.batch_size": 8, "detector.width": 32, "detector.learning_rate": 1e-3},
        {"detector.epochs": 40},
        {"detector.epochs": 8},
    ),
    "destseg": Benchmark(
        "unsupervised/destseg.py",
        {"detector.width": 16, "detector.hidden": 64, "data.batch_size": 8},
        {"detector.student_steps": 60, "detector.segment_steps": 100, "data.resize": 128},
        {"detector.student_steps": 30, "detector.segment_steps": 60, "data.resize": 128},
    ),
    "devnet": Benchmark(
        "supervised/devnet.py",
        {"detector.layers": ("layer3",), "detector.steps": 60, "detector.decay_every": 40, "data.batch_size": 12},
        {"protocol.num_anomalies": 5},
    ),
    "dfkde": Benchmark("unsupervised/dfkde.py", {"detector.layers": ("layer3",)}),
    "dfm": Benchmark("unsupervised/dfm.py"),
    "dfr": Benchmark(
        "unsupervised/dfr.py",
        {"detector.layers": ("layer1", "layer2", "layer3"), "detector.learning_rate": 1e-3, "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "differnet": Benchmark(
        "unsupervised/differnet.py",
        {"detector.layers": ("layer3",), "detector.hidden": 512, "detector.gradient_map": False, "data.batch_size": 8},
        {"detector.epochs": 20, "detector.rotations": 16, "detector.learning_rate": 1e-3},
        {"detector.epochs": 2, "detector.rotations": 4},
    ),
    "diffusionad": Benchmark(
        "unsupervised/diffusionad.py",
        {
            "data.resize": 64,
            "data.batch_size": 8,
            "detector.width": 32,
            "detector.segment_width": 16,
            "detector.denoiser_rate": 1e-3,
            "detector.segment_rate": 2e-3,
        },
        {"detector.epochs": 40},
        {"detector.epochs": 8},
        pretrained=False,
    ),
    "dinomaly": Benchmark(
        "unsupervised/dinomaly.py",
        {"detector.layers": ("layer2",), "detector.groups": 1, "detector.dropout": 0.4, "data.crop": 0, "data.batch_size": 8},
        {"detector.steps": 300},
        {"detector.steps": 300},
    ),
    "draem": Benchmark(
        "unsupervised/draem.py",
        {"detector.width": 16, "detector.segment_width": 16, "detector.learning_rate": 2e-3, "data.batch_size": 8},
        {"detector.epochs": 20, "data.resize": 128},
        {"detector.epochs": 2, "data.resize": 128},
        pretrained=False,
    ),
    "dsr": Benchmark(
        "unsupervised/dsr.py",
        {
            "detector.codes": 128,
            "detector.dimension": 16,
            "detector.width": 16,
            "detector.hidden": 8,
            "detector.inner": 16,
            "detector.segment_width": 16,
            "detector.codebook_steps": 600,
            "detector.codebook_rate": 2e-3,
            "detector.restore_steps": 600,
            "detector.refine_steps": 200,
            "detector.learning_rate": 2e-3,
            "data.resize": 128,
            "data.batch_size": 8,
        },
        pretrained=False,
    ),
    "efficientad": Benchmark(
        "unsupervised/efficientad.py",
        {"detector.steps": 60, "detector.learning_rate": 5e-4, "data.batch_size": 1},
        mtd={"detector.steps": 30, "data.resize": 128},
        pretrained=False,
    ),
    "fastflow": Benchmark(
        "unsupervised/fastflow.py",
        {"detector.conv3x3_only": True, "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "favae": Benchmark(
        "unsupervised/favae.py",
        {"detector.layers": ("layer1", "layer2"), "detector.width": 32, "detector.learning_rate": 1e-3, "data.batch_size": 8},
        {"detector.epochs": 40, "data.resize": 128},
        {"detector.epochs": 4, "data.resize": 128},
    ),
    "foundad": Benchmark(
        "few_shot/foundad.py",
        {"protocol.num_shots": 4, "detector.layers": ("layer2", "layer3"), "detector.epochs": 200, "data.batch_size": 4},
        {"data.category": ""},
    ),
    "fre": Benchmark("unsupervised/fre.py", {}, {"detector.epochs": 40}, {"detector.epochs": 10}),
    "fyd": Benchmark(
        "unsupervised/fyd.py",
        {"data.crop": 0, "data.batch_size": 16, "detector.width": 64},
        {"detector.epochs": 20},
        {"detector.epochs": 5},
    ),
    "ganomaly": Benchmark(
        "unsupervised/ganomaly.py",
        {"data.resize": 64, "data.batch_size": 16},
        {"detector.epochs": 100},
        {"detector.epochs": 20},
        pretrained=False,
    ),
    "gaussian_ad": Benchmark("unsupervised/gaussian_ad.py", {"detector.layers": ("layer1", "layer2", "layer3")}),
    "gcpf": Benchmark(
        "unsupervised/gcpf.py",
        {"data.crop": 0, "detector.gaussian_epochs": 2},
        {"detector.kmeans_epochs": 10},
        {"detector.kmeans_epochs": 5},
    ),
    "generalad": Benchmark(
        "unsupervised/generalad.py",
        {"detector.layers": ("layer2", "layer3"), "detector.hidden": 512, "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "glass": Benchmark(
        "unsupervised/glass.py",
        {"detector.pretrain_dimension": 384, "detector.target_dimension": 384, "detector.ascent_steps": 5},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "hvqtrans": Benchmark(
        "multi_class/hvqtrans.py",
        {
            "detector.layers": ("layer1", "layer2", "layer3"),
            "data.batch_size": 8,
            "detector.codes": 128,
            "detector.decay": 0.95,
            "detector.revive": 0.03,
            "detector.learning_rate": 4e-4,
        },
        {"detector.epochs": 40, "data.category": ""},
        {"detector.epochs": 4},
    ),
    "ikd": Benchmark(
        "unsupervised/ikd.py",
        {"data.batch_size": 8, "detector.layers": ("layer1", "layer2"), "detector.learning_rate": 1e-3},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "inpformer": Benchmark(
        "unsupervised/inpformer.py",
        {"detector.layers": ("layer2",), "detector.groups": 1, "data.crop": 0, "data.batch_size": 8, "detector.warmup": 20},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "intra": Benchmark(
        "unsupervised/intra.py",
        {
            "detector.length": 5,
            "detector.d": 128,
            "detector.blocks": 4,
            "detector.windows": 8,
            "detector.learning_rate": 1e-3,
            "data.resize": 128,
            "data.batch_size": 8,
        },
        {"detector.epochs": 100},
        {"detector.epochs": 20},
        pretrained=False,
    ),
    "inversionad": Benchmark(
        "multi_class/inversionad.py",
        {
            "detector.layers": ("layer1", "layer2", "layer3"),
            "detector.width": 256,
            "detector.depth": 4,
            "detector.learning_rate": 1e-3,
        },
        {"detector.epochs": 40, "detector.warmup_epochs": 4, "data.category": ""},
        {"detector.epochs": 10, "detector.warmup_epochs": 1},
    ),
    "memseg": Benchmark(
        "unsupervised/memseg.py",
        {"detector.layers": ("relu", "layer1", "layer2", "layer3"), "data.crop": 0},
        {"detector.steps": 100, "data.resize": 128},
        {"detector.steps": 60, "data.resize": 128},
    ),
    "mh_patchcore": Benchmark("unsupervised/mh_patchcore.py", {"data.crop": 0}),
    "mkd": Benchmark(
        "unsupervised/mkd.py",
        {"detector.layers": ("layer1", "layer2", "layer3"), "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "msc": Benchmark(
        "unsupervised/msc.py",
        {"detector.layers": ("layer3",), "detector.trained": ("layer3",), "data.crop": 0, "data.batch_size": 16},
        {"detector.epochs": 5},
        {"detector.epochs": 1},
    ),
    "msflow": Benchmark(
        "unsupervised/msflow.py",
        {"detector.blocks": (2, 2, 2), "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "mstunet": Benchmark(
        "unsupervised/mstunet.py",
        {
            "detector.width": 24,
            "detector.window": 4,
            "detector.segment_width": 16,
            "detector.learning_rate": 1e-3,
            "data.batch_size": 8,
            "data.resize": 128,
        },
        {"detector.epochs": 40},
        {"detector.epochs": 4},
        pretrained=False,
    ),
    "musc": Benchmark(
        "zero_shot/musc.py",
        {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3", "detector.normalize_class": True},
    ),
    "nsa": Benchmark(
        "unsupervised/nsa.py",
        {"detector.width": 16, "detector.learning_rate": 2e-3, "data.batch_size": 8, "data.resize": 128},
        {"detector.epochs": 40},
        {"detector.epochs": 3},
        pretrained=False,
    ),
    "ocrgan": Benchmark(
        "unsupervised/ocrgan.py",
        {"data.resize": 64, "data.batch_size": 8, "detector.width": 16, "detector.cutout": 5, "detector.learning_rate": 1e-3},
        {"detector.epochs": 60},
        {"detector.epochs": 10},
        pretrained=False,
    ),
    "padim": Benchmark("unsupervised/padim.py", {"detector.num_channels": 100, "data.crop": 0}),
    "panda": Benchmark(
        "unsupervised/panda.py",
        {"detector.layers": ("layer3",), "detector.trained": ("layer3",), "data.crop": 0, "data.batch_size": 16},
        {"detector.epochs": 5},
        {"detector.epochs": 1},
    ),
    "patchcore": Benchmark("unsupervised/patchcore.py", {}, {"detector.coreset_ratio": 0.1}, {"detector.coreset_ratio": 0.01}),
    "patchflow": Benchmark(
        "unsupervised/patchflow.py",
        {"detector.layers": ("layer1", "layer2", "layer3"), "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "patchsvdd": Benchmark(
        "unsupervised/patchsvdd.py",
        {"data.batch_size": 8, "detector.pairs": 4, "detector.learning_rate": 1e-3, "detector.small_stride": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
        pretrained=False,
    ),
    "pni": Benchmark(
        "unsupervised/pni.py",
        {
            "detector.pretrain_dimension": 256,
            "detector.target_dimension": 256,
            "detector.reach": 2,
            "detector.hidden": 256,
            "detector.mlp_layers": 3,
            "detector.distribution_size": 256,
            "data.batch_size": 8,
            "data.crop": 0,
        },
        {"detector.epochs": 6, "detector.refine_steps": 200},
        {"detector.epochs": 2, "detector.refine_steps": 50},
    ),
    "pyramidflow": Benchmark(
        "unsupervised/pyramidflow.py",
        {"detector.stacks": 2, "data.batch_size": 4, "detector.learning_rate": 1e-3},
        {"detector.epochs": 6},
        {"detector.epochs": 2},
    ),
    "rad": Benchmark(
        "multi_class/rad.py", {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3", "data.crop": 0}
    ),
    "rd4ad": Benchmark(
        "unsupervised/rd4ad.py", {"data.batch_size": 8}, {"detector.epochs": 12}, {"detector.epochs": 2}
    ),
    "rdpp": Benchmark("unsupervised/rdpp.py", {"data.batch_size": 8}, {"detector.epochs": 12}, {"detector.epochs": 2}),
    "reconpatch": Benchmark(
        "unsupervised/reconpatch.py",
        {"data.crop": 0, "data.batch_size": 4, "detector.coreset_ratio": 0.05},
        {"detector.epochs": 4, "detector.learning_rate": 1e-3},
        {"detector.epochs": 1, "detector.learning_rate": 1e-3},
    ),
    "rgi": Benchmark(
        "unsupervised/rgi.py",
        {
            "data.resize": 64,
            "detector.width": 16,
            "detector.latent": 64,
            "detector.learning_rate": 1e-3,
            "detector.iterations": 300,
        },
        {"detector.steps": 3000},
        {"detector.steps": 3000},
        pretrained=False,
    ),
    "riad": Benchmark(
        "unsupervised/riad.py",
        {"detector.width": 16, "detector.learning_rate": 1e-3, "data.batch_size": 8, "data.resize": 128},
        {"detector.epochs": 20, "detector.window": 11},
        {"detector.epochs": 2, "detector.window": 11},
        pretrained=False,
    ),
    "scadn": Benchmark(
        "unsupervised/scadn.py",
        {
            "data.resize": 64,
            "detector.width": 16,
            "detector.blocks": 4,
            "detector.learning_rate": 1e-3,
            "detector.discriminator_rate": 1e-4,
        },
        {"detector.epochs": 40},
        {"detector.epochs": 8},
        pretrained=False,
    ),
    "score_based": Benchmark(
        "unsupervised/score_based.py",
        {
            "data.resize": 64,
            "data.batch_size": 8,
            "detector.width": 32,
            "detector.multipliers": (1, 2, 2),
            "detector.learning_rate": 1e-3,
            "detector.decay": 0.995,
            "detector.window": 7,
        },
        {"detector.epochs": 60},
        {"detector.epochs": 10},
        pretrained=False,
    ),
    "simplenet": Benchmark(
        "unsupervised/simplenet.py",
        {"detector.pretrain_dimension": 384, "detector.target_dimension": 384, "data.crop": 0},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "softpatch": Benchmark("unsupervised/softpatch.py", {"detector.embedding": "pool", "data.crop": 0}),
    "somad": Benchmark(
        "unsupervised/somad.py",
        {"detector.num_channels": 100, "data.crop": 0, "detector.side": 28},
        {"detector.rough_epochs": 8, "detector.fine_epochs": 6},
        {"detector.rough_epochs": 4, "detector.fine_epochs": 3},
    ),
    "spade": Benchmark("unsupervised/spade.py", {"detector.class_layer": "layer3", "data.crop": 0}),
    "stpm": Benchmark("unsupervised/stpm.py", {"data.batch_size": 8}, {"detector.epochs": 20}, {"detector.epochs": 4}),
    "subspacead": Benchmark(
        "few_shot/subspacead.py",
        {"protocol.num_shots": 4, "detector.layers": ("layer2", "layer3"), "detector.aggregation": "concatenate"},
    ),
    "superad": Benchmark(
        "unsupervised/superad.py", {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3"}
    ),
    "superadd": Benchmark(
        "unsupervised/superadd.py",
        {"detector.layers": ("layer2", "layer3"), "detector.tile": 128, "detector.overlap": 32, "detector.bank_size": 10_000},
    ),
    "supersimplenet": Benchmark(
        "unsupervised/supersimplenet.py",
        {"data.batch_size": 8, "detector.hidden": 256, "data.resize": 128},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "transfusion": Benchmark(
        "unsupervised/transfusion.py",
        {
            "data.resize": 64,
            "data.batch_size": 8,
            "detector.width": 32,
            "detector.multipliers": (1, 2, 2),
            "detector.attended": 1,
            "detector.blocks": 1,
            "detector.steps": 10,
            "detector.learning_rate": 1e-3,
        },
        {"detector.epochs": 30},
        {"detector.epochs": 6},
        pretrained=False,
    ),
    "uflow": Benchmark(
        "unsupervised/uflow.py",
        {"data.batch_size": 8, "detector.learning_rate": 1e-3},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "uniad": Benchmark(
        "multi_class/uniad.py",
        {
            "detector.layers": ("layer1", "layer2", "layer3"),
            "data.resize": 224,
            "data.batch_size": 8,
            "detector.learning_rate": 4e-4,
        },
        {"detector.epochs": 40, "data.category": ""},
        {"detector.epochs": 4},
    ),
    "uninet": Benchmark(
        "unsupervised/uninet.py",
        {"data.batch_size": 8, "data.resize": 128, "detector.temperature": 0.1, "detector.learning_rate": 1e-3},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "us": Benchmark(
        "unsupervised/us.py",
        {
            "detector.layer": "layer3",
            "detector.patch_sizes": (33,),
            "detector.width": 32,
            "detector.dimension": 64,
            "data.batch_size": 4,
        },
        {"detector.teacher_steps": 200, "detector.epochs": 6, "data.resize": 128},
        {"detector.teacher_steps": 200, "detector.epochs": 2, "data.resize": 128},
    ),
    "vae": Benchmark(
        "unsupervised/vae.py",
        {"detector.learning_rate": 1e-3, "data.batch_size": 8, "data.resize": 128},
        {"detector.epochs": 40},
        {"detector.epochs": 4},
        pretrained=False,
    ),
    "vtadl": Benchmark(
        "unsupervised/vtadl.py",
        {
            "detector.patch": 16,
            "detector.dim": 64,
            "detector.depth": 2,
            "detector.heads": 4,
            "detector.hidden": 128,
            "detector.widths": (32, 16, 8),
            "detector.kernels": (4, 4, 4, 4),
            "detector.strides": (2, 2, 2, 2),
            "detector.paddings": (1, 1, 1, 1),
            "detector.gaussians": 4,
            "detector.learning_rate": 1e-3,
            "data.resize": 128,
            "data.crop": 0,
            "data.batch_size": 8,
        },
        {"detector.epochs": 60},
        {"detector.epochs": 12},
        pretrained=False,
    ),
}  # fmt: skip


def overrides(name: str, dataset: str) -> dict[str, Any]:
    """What the run of a detector on a data set changes in its config."""
    benchmark = BENCHMARKS[name]
    if dataset == "synthetic":
        return {}
    changed = {"data.resize": 256, **benchmark.real, **(benchmark.mtd if dataset == "mtd_300" else benchmark.hazelnut)}
    if benchmark.pretrained:
        changed["backbone.name"] = "resnet18"
    return changed
