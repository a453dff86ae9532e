"""MTD, magnetic tile defects (Huang, Qiu & Yuan, The Visual Computer 2020): grey images, five kinds of defect.

Layout as published: `MT_<kind>/Imgs/<name>.jpg` with the mask `<name>.png` beside it; 952 normal and 392 defective images.
There is no official split. Here: sorted by name, every fifth normal image (index % 5 == 0) is for test, and so is every
defective one: 761 train, 191 + 392 test. "mtd_300" is a quick subset: the first 200 training images, the first 100 normal
test images and the first 20 of each kind of defect.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import read_item
from iadjax.errors import UserError

__all__ = ["mtd"]

KINDS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")


def mtd(root: str, subset: bool = False) -> Dataset:
    """The data set in the folder `root`; with `subset`, 200 train and 200 test images of it."""
    if not root:
        raise UserError("mtd needs --config.data.root=DIR, the folder that holds MT_Free, MT_Crack, ...")
    base = Path(root).expanduser()
    normal = _items(base, "Free")
    test = [item for i, item in enumerate(normal) if i % 5 == 0]
    train = [item for i, item in enumerate(normal) if i % 5 != 0]
    defects = {kind: _items(base, kind) for kind in KINDS}
    if subset:
        train, test = train[:200], test[:100]
        defects = {kind: items[:20] for kind, items in defects.items()}
    test = test + [item for items in defects.values() for item in items]
    return Dataset("mtd_300" if subset else "mtd", ("magnetic_tile",), tuple(train), tuple(test), read_item, True)


def _items(base: Path, kind: str) -> list[Item]:
    directory = base / f"MT_{kind}" / "Imgs"
    files = sorted(directory.glob("*.jpg"))
    if not files:
        raise UserError(f"{directory} is missing or holds no .jpg; give the folder of MTD with --config.data.root=DIR")
    label = int(kind != "Free")
    items = []
    for file in files:
        mask = file.with_suffix(".png") if label else None
        if mask and not mask.is_file():
            raise UserError(f"the image {file} has no mask {mask.name} beside it")
        items.append(
            Item(
                f"MT_{kind}/Imgs/{file.name}",
                "magnetic_tile",
                label,
                "good" if kind == "Free" else kind.lower(),
                file,
                mask,
            )
        )
    return items
