"""Small trees in the exact layouts of the published data sets, and the truth that was drawn into them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

SIZE = (20, 24)


class Truth(NamedTuple):
    """What an index must say of an image: its part of the split, category, label, defect and mask (None: nothing marked)."""

    part: str
    category: str
    label: int
    defect: str
    mask: np.ndarray | None


def _rng(path: Path) -> np.random.Generator:
    # images of one name in different folders differ
    return np.random.default_rng(list("/".join(path.parts[-4:]).encode()))


def photo(path: Path, grey: bool = False) -> Path:
    """Noise, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_rng(path).integers(0, 255, SIZE if grey else (*SIZE, 3), np.uint8)).save(path)
    return path


def spot(path: Path) -> np.ndarray:
    """A rectangle that depends on the name alone."""
    top, left = _rng(path).integers(1, 9, 2)
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 7, left : left + 5] = 1
    return mask


def marks(path: Path, mask: np.ndarray, value: int = 255) -> np.ndarray:
    """Writes a mask with this value and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * value).astype(np.uint8)).save(path)
    return mask


def _mvtec(root: Path, categories: dict[str, bool]) -> dict[str, Truth]:
    truth = {}
    for category, grey in categories.items():
        for part, folder, kind in (("train", "train", "good"), ("test", "test", "good"), ("test", "test", "broken")):
            for i in range(3 if part == "train" else 2):
                path = f"{category}/{folder}/{kind}/{i:03d}.png"
                file = photo(root / path, grey)
                bad = kind != "good"
                mask = marks(root / f"{category}/ground_truth/{kind}/{i:03d}_mask.png", spot(file)) if bad else None
                truth[path] = Truth(part, category, int(bad), kind, mask)
    return truth


def mvtec_ad(root):
    return _mvtec(root, {"bottle": False, "grid": True})


def mpdd(root):
    return _mvtec(root, {"connector": False, "tubes": False})


def mvtec_loco(root):
    truth = {}
    for category in ("breakfast_box", "pushpins"):
        config = [
            {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 10, "relative_saturation": False},
            {"defect_name": "b", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
        ]
        for part, folder in (("train", "train/good"), ("validation", "validation/good"), ("test", "test/good")):
            for i in range(2):
                photo(root / category / folder / f"{i:03d}.png")
                truth[f"{category}/{folder}/{i:03d}.png"] = Truth(part, category, 0, "good", None)
        for kind in ("logical_anomalies", "structural_anomalies"):
            for i in range(2):
                path = f"{category}/test/{kind}/{i:03d}.png"
                photo(root / path)
                mask = np.zeros(SIZE, np.uint8)
                # one image with one defect, one with two that overlap
                for j in range(i + 1):
                    file = root / f"{category}/ground_truth/{kind}/{i:03d}/{j:03d}.png"
                    mask |= marks(file, spot(file), 255 - j)
                truth[path] = Truth("test", category, 1, kind, mask)
        (root / category / "defects_config.json").write_text(json.dumps(config))
    return truth


def mvtec_3d_ad(root):
    truth = {}
    for category in ("bagel", "tire"):
        for part, folder in (
            ("train", "train/good"),
            ("validation", "validation/good"),
            ("test", "test/good"),
            ("test", "test/hole"),
        ):
            for i in range(2):
                path, kind = f"{category}/{folder}/rgb/{i:03d}.png", folder.rpartition("/")[2]
                file = photo(root / path)
                xyz = root / f"{category}/{folder}/xyz/{i:03d}.tiff"
                xyz.parent.mkdir(parents=True, exist_ok=True)
                points = _rng(xyz).uniform(0.3, 0.7, (*SIZE, 3)).astype(np.float32)
                points[0] = 0
                tifffile.imwrite(xyz, points, photometric="minisblack", planarconfig="contig")
                mask = spot(file) if kind != "good" else np.zeros(SIZE, np.uint8)
                if part == "test":
                    marks(root / f"{category}/{folder}/gt/{i:03d}.png", mask)
                truth[path] = Truth(part, category, int(kind != "good"), kind, mask if mask.any() else None)
    return truth


def _mvtec_ad_2(root, private=False):
    truth = {}
    for category in ("can", "vial"):
        for part, folder in (
            ("train", "train/good"), ("validation", "validation/good"), ("test", "test_public/good"),
            ("test", "test_public/bad"), ("test", "test_private"), ("test", "test_private_mixed"),
        ):  # fmt: skip
            for name in ("000_regular", "001_overexposed"):
                path = f"{category}/{folder}/{name}.png"
                file = photo(root / path)
                bad = folder == "test_public/bad"
                mask = marks(root / f"{category}/test_public/ground_truth/bad/{name}_mask.png", spot(file)) if bad else None
                kind = "bad" if bad else "unknown" if "private" in folder else "good"
                if part != "test" or ("private" in folder) == private:
                    truth[path] = Truth(part, category, int(bad), kind, mask)
    return truth


def mvtec_ad_2(root):
    return _mvtec_ad_2(root)


def mvtec_ad_2_private(root):
    return _mvtec_ad_2(root, private=True)


def _visa(root, file_name, supervised):
    truth = {}
    lines = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        notes = ["image,label,mask"]
        for i in range(4):
            path = f"{category}/Data/Images/Normal/{i:04d}.JPG"
            photo(root / path)
            part = "train" if i < 2 else "test"
            lines.append(f"{category},{part},normal,{path},")
            notes.append(f"{path},normal,")
            truth[path] = Truth(part, category, 0, "good", None)
        for i in range(3):
            path, where = f"{category}/Data/Images/Anomaly/{i:03d}.JPG", f"{category}/Data/Masks/Anomaly/{i:03d}.png"
            # coded by kind: 1, 2, 3
            mask = marks(root / where, spot(photo(root / path)), i + 1)
            part = "train" if supervised and i == 0 else "test"
            lines.append(f"{category},{part},anomaly,{path},{where}")
            notes.append(f'{path},"bent,melt",{where}')
            truth[path] = Truth("anomalies" if part == "train" else part, category, 1, "bent,melt", mask)
        (root / category / "image_anno.csv").write_text("\n".join(notes) + "\n")
    (root / "split_csv").mkdir()
    (root / "split_csv" / file_name).write_text("\n".join(lines) + "\n")
    return truth


def visa(root):
    return _visa(root, "1cls.csv", False)


def visa_2cls_fewshot(root):
    return _visa(root, "2cls_fewshot.csv", True)


def visa_2cls_highshot(root):
    return _visa(root, "2cls_highshot.csv", True)


def btad(root):
    truth = {}
    for category, image, suffix in (("01", "bmp", "png"), ("03", "bmp", "bmp")):
        for part, folder in (("train", "train/ok"), ("test", "test/ok"), ("test", "test/ko")):
            for i in range(2):
                path = f"{category}/{folder}/{i:04d}.{image}"
                file = photo(root / path)
                bad = folder == "test/ko"
                mask = marks(root / f"{category}/ground_truth/ko/{i:04d}.{suffix}", spot(file)) if bad else None
                truth[path] = Truth(part, category, int(bad), "ko" if bad else "good", mask)
    return truth


def kolektor_sdd(root):
    truth, normal = {}, 0
    for part in ("kos01", "kos02"):
        for i in range(5):
            path = f"{part}/Part{i}.jpg"
            file, bad = photo(root / path, grey=True), i == 2
            mask = marks(root / f"{part}/Part{i}_label.bmp", spot(file) * bad)
            split = "test" if bad or normal % 5 == 0 else "train"
            normal += not bad
            truth[path] = Truth(split, "commutator", int(bad), "crack" if bad else "good", mask if bad else None)
    return truth


def kolektor_sdd2(root):
    truth = {}
    for folder in ("train", "test"):
        for i in range(4):
            path, bad = f"{folder}/{10000 + i}.png", i == 1
            mask = marks(root / f"{folder}/{10000 + i}_GT.png", spot(photo(root / path)) * bad)
            part = folder if folder == "test" or not bad else "anomalies"
            truth[path] = Truth(part, "surface", int(bad), "defect" if bad else "good", mask if bad else None)
    # a stray copy that the archive has
    marks(root / "train/10301_GT(1).png", np.zeros(SIZE, np.uint8))
    return truth


def dagm(root):
    truth = {}
    for category in ("Class1", "Class10"):
        for folder in ("Train", "Test"):
            for i in range(1, 5):
                path, bad = f"{category}/{folder}/{i:04d}.PNG", i == 3
                file = photo(root / path, grey=True)
                mask = marks(root / f"{category}/{folder}/Label/{i:04d}_label.PNG", spot(file)) if bad else None
                part = "test" if folder == "Test" else "anomalies" if bad else "train"
                truth[path] = Truth(part, category, int(bad), "defect" if bad else "good", mask)
            (root / category / folder / "Label/Labels.txt").write_text("1\n")
    return truth


def mtd(root):
    truth = {}
    for kind in ("Free", "Blowhole", "Break", "Crack", "Fray", "Uneven"):
        for i in range(6 if kind == "Free" else 1):
            path, bad = f"MT_{kind}/Imgs/exp1_num_{i:02d}.jpg", kind != "Free"
            file = photo(root / path, grey=True)
            # nearly binary, as the published masks are
            mask = marks(file.with_suffix(".png"), spot(file) * bad, 250)
            part = "train" if not bad and i % 5 else "test"
            truth[path] = Truth(part, "magnetic_tile", int(bad), kind.lower() if bad else "good", mask if bad else None)
    return truth


def deeppcb(root):
    truth = {}
    base = root / "PCBData"
    for listing, numbers in (("trainval.txt", (0, 1)), ("test.txt", (2,))):
        lines = []
        for i in numbers:
            stem = f"group00041/00041/{41000 + i:08d}"
            boxes = f"group00041/00041_not/{41000 + i:08d}.txt"
            template, tested = photo(base / f"{stem}_temp.jpg", True), photo(base / f"{stem}_test.jpg", True)
            mask = np.zeros(SIZE, np.uint8)
            rows = []
            for kind, (x, y) in enumerate(((2, 3), (12, 9))[: i + 1], start=2):
                mask[y : y + 4, x : x + 3] = 1
                rows.append(f"{x} {y} {x + 2} {y + 3} {kind}")
            (base / boxes).parent.mkdir(parents=True, exist_ok=True)
            (base / boxes).write_text("\n".join(rows) + "\n")
            lines.append(f"{stem}.jpg {boxes}")
            part = "train" if listing == "trainval.txt" else "test"
            truth[template.relative_to(base).as_posix()] = Truth(part, "pcb", 0, "good", None)
            bad = "anomalies" if part == "train" else "test"
            truth[tested.relative_to(base).as_posix()] = Truth(bad, "pcb", 1, "several" if i else "short", mask)
        (base / listing).write_text("\n".join(lines) + "\n")
    return truth


def neu_det(root):
    truth = {}
    for kind in ("crazing", "rolled-in_scale"):
        for i in (1, 2):
            photo(root / f"IMAGES/{kind}_{i}.jpg", grey=True)
            mask = np.zeros(SIZE, np.uint8)
            mask[:6, 3:9] = 1
            # corners from 1, both inside
            box = "<bndbox><xmin>4</xmin><ymin>1</ymin><xmax>9</xmax><ymax>6</ymax></bndbox>"
            note = f"<annotation><filename>{kind}_{i}.jpg</filename><object><name>{kind}</name>{box}</object></annotation>"
            (root / "ANNOTATIONS").mkdir(exist_ok=True)
            (root / f"ANNOTATIONS/{kind}_{i}.xml").write_text(note)
            truth[f"IMAGES/{kind}_{i}.jpg"] = Truth("test", "hot_rolled_steel", 1, kind, mask)
    return truth


def _real_iad(root, size):
    truth = {}
    for category in ("audiojack", "zipper"):
        rows = {"train": [], "test": []}
        for number, (part, kind) in enumerate((("train", "OK"), ("test", "OK"), ("test", "BX"), ("test", "HS"))):
            for view in (1, 2):
                folder = "OK" if kind == "OK" else f"NG/{kind}"
                stem = f"{folder}/S{number:04d}/{category}_{number:04d}_{kind if kind == 'OK' else 'NG'}_C{view}_20231021"
                path = f"realiad_{size}/{category}/{stem}.jpg"
                file, bad = photo(root / path), kind != "OK"
                mask = marks(file.with_name(f"{file.stem}_mask.png"), spot(file)) if bad else None
                row = {"category": category, "anomaly_class": kind, "image_path": f"{stem}.jpg"}
                rows[part].append(row | {"mask_path": f"{stem}_mask.png" if bad else None})
                truth[path] = Truth(part, category, int(bad), kind if bad else "good", mask)
        listing = root / f"realiad_jsons/realiad_jsons/{category}.json"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(json.dumps({"meta": {"normal_class": "OK", "prefix": f"{category}/"}} | rows))
    return truth


def real_iad(root):
    return _real_iad(root, 1024)


def real_iad_256(root):
    return _real_iad(root, 256)


def real_iad_512(root):
    return _real_iad(root, 512)


def eyecandies(root):
    truth = {}
    for category in ("CandyCane", "Lollipop"):
        for folder, part in (("train", "train"), ("val", "validation"), ("test_public", "test"), ("test_private", "")):
            for i in range(2):
                stem, bad = f"{category}/{folder}/data/{i:03d}", folder == "test_public" and i == 1
                for light in range(6):
                    file = photo(root / f"{stem}_image_{light}.png")
                depth = _rng(root / f"{stem}_depth.png").integers(1, 65535, SIZE).astype(np.uint16)
                Image.fromarray(depth).save(root / f"{stem}_depth.png")
                (root / f"{stem}_info_depth.yaml").write_text("normalization:\n  max: 1.5\n  min: 0.5\n")
                if not part:
                    continue
                kinds = f"bumps: 0\ncolors: {int(bad)}\ndents: 0\nnormals: {int(bad)}\n"
                (root / f"{stem}_metadata.yaml").write_text(f"anomalous: {int(bad)}\n{kinds}")
                mask = marks(root / f"{stem}_mask.png", spot(file) * bad)
                defect = "colors+normals" if bad else "good"
                truth[f"{stem}_image_5.png"] = Truth(part, category, int(bad), defect, mask if bad else None)
    return truth


def elpv(root):
    truth, lines = {}, []
    seen = {"mono": 0, "poly": 0}
    for i, (value, kind) in enumerate(
        (v, k) for k in ("poly", "mono") for v in ("0.0", "0.3333333333333333", "0.0", "0.6666666666666666", "1.0")
    ):
        path = f"images/cell{i:04d}.png"
        photo(root / path, grey=True)
        lines.append(f"{path}  {value} {kind:>5}")
        label = int(float(value) > 0.5)
        defect = {"0.6": "probability_2/3", "1.0": "probability_1"}.get(value[:3], "good")
        train = value == "0.0" and seen[kind] % 5
        seen[kind] += value == "0.0"
        truth[path] = Truth("train" if train else "test", kind, label, defect, None)
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return truth


def dtd(root):
    truth = {}
    for texture in ("banded", "zigzagged"):
        for i in range(2):
            path = f"images/{texture}/{texture}_{i:04d}.jpg"
            photo(root / path)
            truth[path] = Truth("train", texture, 0, "good", None)
    return truth


TREES = {
    each.__name__: each
    for each in (
        btad, dagm, deeppcb, dtd, elpv, eyecandies, kolektor_sdd, kolektor_sdd2, mpdd, mtd, mvtec_3d_ad, mvtec_ad, mvtec_ad_2,
        mvtec_ad_2_private, mvtec_loco, neu_det, real_iad, real_iad_256, real_iad_512, visa,
        visa_2cls_fewshot, visa_2cls_highshot,
    )
}  # fmt: skip
TREES["mtd_300"] = mtd


def draw(name: str, root: Path) -> tuple[dict[str, Truth], str]:
    """Draws the tree of a data set; returns its truth and its categories, joined by commas."""
    truth = TREES[name](root)
    return truth, ",".join(sorted({each.category for each in truth.values()}))
