"""Pages of the site that are made of the code: home of the README, detectors by family, the API, the gallery."""

import ast
import inspect
import json
import re
from pathlib import Path

from mkdocs.structure.files import File

import iadjax
from iadjax import detectors, losses

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/iadjax/iadjax/blob/main"

FAMILIES = {
    "memory_bank": "memory bank",
    "distribution": "distribution map: flows and Gaussians",
    "teacher_student": "teacher-student",
    "one_class": "one-class classification",
    "autoencoder": "autoencoder",
    "gan": "GAN",
    "transformer": "transformer",
    "diffusion": "diffusion",
    "supervised": "supervised, with few anomalies",
    "zero_shot": "zero-shot, by language or by the set itself",
}

# the leaves of the survey's tree (arXiv 2301.11514), and the folders of detectors that hang on them
TREE = {
    "Unsupervised, feature embedding": ("teacher_student", "one_class", "distribution", "memory_bank"),
    "Unsupervised, reconstruction": ("autoencoder", "gan", "transformer", "diffusion"),
    "Supervised": ("supervised",),
    "Since the survey": ("zero_shot",),
}

API = {
    "iadjax": (
        "iadjax",
        ("fit", "load", "evaluate", "predict_files", "merge", "fit_sequence", "from_torch", "Run", "UserError"),
    ),
    "detector": ("iadjax.detector", None),
    "ops": ("iadjax.ops", None),
    "metrics": ("iadjax.metrics", None),
    "backbones": ("iadjax.backbones", None),
    "data": ("iadjax.data", None),
    "config": ("iadjax.config", None),
}
# losses that are taken from elsewhere: by their import, what they are and where that stands
BORROWED = {
    "optax.losses.hinge_loss": "Hinge: max(0, 1 - y D), y in {-1, 1}; of critics, `losses.truncated_l1` with th = 1",
    "optax.losses.ntxent": "NT-Xent: cross entropy of cosines over a temperature (Chen et al., ICML 2020, eq. 1)",
    "optax.losses.sigmoid_binary_cross_entropy": "Binary cross entropy of logits",
    "optax.losses.sigmoid_focal_loss": "Focal loss of one logit for each pixel (Lin et al., ICCV 2017, eq. 5)",
    "optax.losses.softmax_cross_entropy_with_integer_labels": "Cross entropy of logits",
    "optax.losses.triplet_margin_loss": "max(0, |a - p| - |a - n| + margin) (Balntas et al., BMVC 2016)",
    "ops.sinkhorn_divergence": "Debiased Sinkhorn divergence of two sets of points (Feydy et al., AISTATS 2019)",
}

SYNTHESIS = (
    "appearance",
    "cells",
    "cutpaste",
    "nsa",
    "patches",
    "perlin",
    "perlin_texture",
    "feature_noise",
    "patch_pairs",
    "poisson",
    "rotation",
    "source",
    "views",
)


def family_of(name: str) -> str:
    """The folder of a detector."""
    return detectors.MODULES[name].split(".")[-2]


def detectors_page() -> str:
    """Detectors by family, on the survey's tree."""
    rows = json.loads((ROOT / "results/detectors.json").read_text(encoding="utf-8"))["detectors"]
    lines = [
        "# Detectors",
        "",
        "The tree is that of the survey [Deep Industrial Image Anomaly Detection](https://arxiv.org/abs/2301.11514). A "
        "detector is one file; its name is that of the config key `detector.name`. Parameters are those of its config for one "
        "category of MVTec AD. Latency, memory and pictures are of [shortened runs](benchmarks.md) on the built-in synthetic "
        "images with the built-in filters as features, one model for six categories. They show a defect of median score in "
        "each category, outlined, and the map below. Made by `python scripts/benchmarks/detectors.py`.",
        "",
    ]
    for branch, leaves in TREE.items():
        lines += [f"## {branch}", ""]
        for leaf in leaves:
            names = sorted(name for name in detectors.MODULES if family_of(name) == leaf)
            lines += [f"### {FAMILIES[leaf][0].upper()}{FAMILIES[leaf][1:]}", ""]
            if not names:
                lines += ["None yet.", ""]
                continue
            for name in names:
                lines += [*detector_section(name, rows.get(name, {})), ""]
    return "\n".join(lines)


def detector_section(name: str, row: dict) -> list[str]:
    """One detector: its paper, what its map means, its cost and its pictures as far as they were measured."""
    link = f"api/detectors.md#{detectors.MODULES[name]}.{name}"
    lines = [f"#### {name}", "", f"{detectors.heading(name)} [API]({link})", "", f"Map: {detectors.map_unit(name)}", ""]
    costs = []
    if "parameters" in row:
        frozen, trained = (f"{row['parameters'][kind] / 1e6:.1f} million" for kind in ("frozen", "trained"))
        costs.append(f"{frozen} frozen and {trained} trained parameters")
    if "synthetic" in row:
        each = row["synthetic"]
        latency = f"{each['latency_ms']:.0f} ms an image, " if each.get("latency_ms") else ""
        costs.append(f"{latency}{each['peak_memory_gib']:.1f} GiB at most")
    lines += [f"Cost: {'; '.join(costs)}.", ""] if costs else []
    picture = f"images/detectors/{name}.jpg"
    return [*lines, f"![defects and maps of {name}]({picture})"] if (ROOT / "docs" / picture).is_file() else lines


def gallery_page(files) -> str:
    """The reports that `scripts/pictures.py` has made, linked."""
    found = sorted(file.src_uri for file in files if re.fullmatch(r"gallery/[^/]+/index\.html", file.src_uri))
    lines = [(ROOT / "docs/gallery.md").read_text(encoding="utf-8")]
    lines += [f"- [{uri.split('/')[1]}]({uri})" for uri in found] or ["There are none in this build."]
    return "\n".join(lines) + "\n"


def api_pages() -> dict[str, str]:
    """One page for each room that users import from."""
    pages = {}
    for page, (module, names) in API.items():
        names = names or [name for name in _import(module).__all__ if callable(getattr(_import(module), name, None))]
        blocks = [f"::: {module}.{name}" for name in names]
        pages[f"api/{page}.md"] = f"# {module}\n\n" + "\n\n".join(blocks) + "\n"
    blocks = [f"::: {module}.{name}" for name, module in sorted(detectors.MODULES.items())]
    pages["api/detectors.md"] = "# Detectors\n\n" + "\n\n".join(blocks) + "\n"
    blocks = [f"::: iadjax.synthesis.{name}" for name in SYNTHESIS]
    pages["api/synthesis.md"] = "# Synthesis\n\n" + "\n\n".join(blocks) + "\n"
    return pages


def losses_page() -> str:
    """The table of losses, and their reference: what each is, where the formula stands, which detectors use it."""
    lines = ["# iadjax.losses", "", inspect.getdoc(losses), "", "| loss | formula and source | used by |", "|---|---|---|"]
    used = {name: _losses_of(module) for name, module in detectors.MODULES.items()}
    rows = {f"losses.{name}": _first_paragraph(getattr(losses, name)) for name in losses.__all__} | BORROWED
    for name, text in rows.items():
        users = ", ".join(sorted(detector for detector, found in used.items() if name in found))
        text = text.replace("|", "\\|")
        lines.append(f"| `{name}` | {text} | {users} |")
    blocks = [f"::: iadjax.losses.{name}" for name in losses.__all__]
    return "\n".join(lines) + "\n\n" + "\n\n".join(blocks) + "\n"


def _first_paragraph(function) -> str:
    return " ".join(inspect.getdoc(function).split("\n\n")[0].split())


def _losses_of(module: str) -> set[str]:
    """The losses that the file of a detector, or the networks and families that it imports, call by name."""
    found, todo, seen = set(), [module], set()
    while todo:
        file = ROOT / (todo.pop().replace(".", "/") + ".py")
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        todo += [
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("iadjax.detectors.families", "iadjax.nn"))
        ]
    return found


def _import(module: str):
    found = iadjax
    for part in module.split(".")[1:]:
        found = getattr(found, part)
    return found


def on_files(files, config):
    """Adds the pages that are made of the code."""
    home = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"index.md": home, "detectors.md": detectors_page(), "api/losses.md": losses_page(), **api_pages()}
    pages["gallery.md"] = gallery_page(files)
    for name, text in pages.items():
        if files.get_file_from_path(name) is not None:
            files.remove(files.get_file_from_path(name))
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files outside docs/ lead to the repository; those of the README into the site."""
    del config, files

    def target(match):
        link, rest = match[1], match[2]
        if "://" in link or link.startswith(("#", "mailto:")):
            return match[0]
        base = ROOT if page.file.src_uri == "index.md" else (ROOT / "docs" / page.file.src_uri).parent
        path = (base / link).resolve()
        if page.file.src_uri == "index.md" and path.is_relative_to(ROOT / "docs") and path.suffix:
            return f"]({path.relative_to(ROOT / 'docs').as_posix()}{rest})"
        if path.exists() and not path.is_relative_to(ROOT / "docs"):
            return f"]({REPOSITORY}/{path.relative_to(ROOT).as_posix()}{rest})"
        return match[0]

    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", lambda match: target(_Whole(match)), markdown)


class _Whole:
    """A match whose missing groups are empty."""

    def __init__(self, match):
        self.match = match

    def __getitem__(self, number):
        return self.match[number] or ""
