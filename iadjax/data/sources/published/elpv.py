"""ELPV: 2,624 solar cells in electroluminescence light, mono- and polycrystalline, grey, 300 x 300 pixels.

Layout: images/cellNNNN.png and labels.csv, each line "images/cellNNNN.png <probability> <mono|poly>"; in the repository both
  lie under src/elpv_dataset/data. The probability of a defect is 0, 1/3, 2/3 or 1.
Masks: none; image labels alone.
Split: none published. Here: an image is anomalous from a probability of 2/3 on. Of the cells with probability 0, sorted by path
  in each category, every fifth (index % 5 == 0) is for test and the others are for training; those with 1/3 (doubtful, label 0)
  and all anomalous ones are for test. The defect is "probability_2/3" or "probability_1".
Licence: CC BY-NC-SA 4.0.
Citation: Deitsch et al.: Automatic classification of defective photovoltaic module cells in electroluminescence images, Solar
  Energy 185, 2019; Buerhop-Lutz et al.: A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence
  Imagery, EU PVSEC 2018.
Address: https://github.com/zae-bayern/elpv-dataset
Unchecked: nothing; layout and counts were compared with the published files.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_item
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.published.common import readable, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

read = read_item
# cells with probability 0, 1/3, 2/3, 1: mono 588, 117, 56, 313; poly 920, 178, 50, 402
COUNTS = {
    "elpv": table(("train", "test_good", "test_anomalous"), {"mono": (470, 118 + 117, 369), "poly": (736, 184 + 178, 452)})
}
CATEGORIES = tuple(COUNTS["elpv"])


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names; `root` is the repository or the folder with labels.csv."""
    base = root_of(name, root, "labels.csv and images")
    inner = base / "src/elpv_dataset/data"
    base = inner if inner.is_dir() else base
    categories = select_categories(category, CATEGORIES)
    listing = readable(base / "labels.csv", "ELPV")
    rows = sorted(_row(line, listing) for line in listing.read_text(encoding="utf-8").splitlines() if line.strip())
    train, test = [], []
    for each in categories:
        seen = 0
        for path, thirds, kind in rows:
            if kind != each:
                continue
            file = readable(base / path, f"{listing}")
            defect = "good" if thirds < 2 else "probability_2/3" if thirds == 2 else "probability_1"
            item = Item(path, each, int(thirds >= 2), defect, file)
            (test if thirds or seen % 5 == 0 else train).append(item)
            seen += thirds == 0
    return Dataset(name, categories, tuple(train), tuple(test), read, False)


def _row(line: str, listing: Path) -> tuple[str, int, str]:
    """(path, probability in thirds, category) of a line."""
    words = line.split()
    try:
        path, probability, kind = words
        thirds = round(3 * float(probability))
        if kind not in CATEGORIES or not 0 <= thirds <= 3:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"the line {line!r} of {listing} is not 'path probability mono|poly'; take the published file"
        ) from error
    return path, thirds, kind
