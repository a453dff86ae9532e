"""What `peer_anomalib.py` runs on both sides: settings that mean the same here and in anomalib 2.7.0."""

from typing import Any, NamedTuple

__all__ = ["CASES", "Case"]


class Case(NamedTuple):
    """One detector on both sides.

    Attributes:
      config: the config file, below configs/.
      ours: its overrides.
      model: the class of `anomalib.models`.
      theirs: its options.
      batch: images of a step.
      epochs: on hazelnut_toy and on MTD-300; 0: one pass, nothing is trained.
      size: side of the input.
      coreset: the coreset's fraction on both sides, on hazelnut_toy and on MTD-300.
      textures: whether both sides take images of textures.
      environment: variables of anomalib's process.
    """

    config: str
    ours: dict[str, Any]
    model: str
    theirs: dict[str, Any]
    batch: int = 8
    epochs: tuple[int, int] = (0, 0)
    size: int = 256
    coreset: tuple[float, float] | None = None
    textures: bool = False
    environment: dict[str, str] = {}


RESNET = {"backbone": "resnet18"}
TWO, THREE = ("layer2", "layer3"), ("layer1", "layer2", "layer3")

CASES = {
    "patchcore": Case(
        "unsupervised/patchcore.py",
        {"layers": TWO, "embedding": "pool", "reweight": True, "num_neighbors": 9},
        "Patchcore",
        {**RESNET, "layers": TWO, "num_neighbors": 9},
        coreset=(0.1, 0.01),
        # with glibc's own threshold the heap falls into pieces: twice the system ended the process at 23 GiB
        environment={"MALLOC_MMAP_THRESHOLD_": "16777216"},
    ),
    "padim": Case(
        "unsupervised/padim.py",
        {"num_channels": 100},
        "Padim",
        {**RESNET, "layers": list(THREE), "n_features": 100},
    ),
    "dfm": Case("unsupervised/dfm.py", {"layer": "layer3", "pooling": 4, "score": "fre"}, "Dfm", {**RESNET, "layer": "layer3"}),
    "stpm": Case(
        "unsupervised/stpm.py",
        {"weight_decay": 1e-3},
        "Stfpm",
        {**RESNET, "layers": THREE},
        epochs=(40, 6),
    ),
    "cfa": Case("unsupervised/cfa.py", {}, "Cfa", RESNET, epochs=(5, 1)),
    "fastflow": Case(
        "unsupervised/fastflow.py",
        {"conv3x3_only": False, "flow_steps": 8, "hidden_ratio": 1.0},
        "Fastflow",
        {**RESNET, "flow_steps": 8, "conv3x3_only": False, "hidden_ratio": 1.0},
        epochs=(10, 2),
    ),
    "cflow": Case(
        "unsupervised/cflow.py",
        # a constant rate, as anomalib has it
        {
            "layers": TWO,
            "fiber_batch": 64,
            "learning_rate": 1e-4,
            "final_fraction": 1.0,
            "warmup": 0.0,
        },
        "Cflow",
        {**RESNET, "layers": TWO, "fiber_batch_size": 64, "lr": 1e-4},
        epochs=(2, 1),
    ),
    "rd4ad": Case(
        "unsupervised/rd4ad.py",
        {"beta2": 0.99},
        "ReverseDistillation",
        {**RESNET, "layers": THREE},
        epochs=(8, 2),
    ),
    "draem": Case(
        "unsupervised/draem.py",
        {"max_beta": 0.8},
        "Draem",
        {"beta": (0.0, 0.8)},
        batch=4,
        epochs=(2, 0),
        size=128,
        textures=True,
    ),
    "ganomaly": Case("unsupervised/ganomaly.py", {}, "Ganomaly", {"batch_size": 16}, batch=16, epochs=(60, 20), size=64),
}  # fmt: skip
