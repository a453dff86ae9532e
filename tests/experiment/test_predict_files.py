"""`predict_files`: rows and files as they come, stopped and continued, skipped files, names, outputs that are no inputs."""

import csv
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import iadjax
from iadjax.errors import UserError
from iadjax.experiment import predict
from iadjax.experiment.inputs import find, safe_name
from iadjax.experiment.outputs import Table
from tests.conftest import config_for, draw_tree

ROOT = Path(__file__).parents[2]
ALL = ("overlays", "maps", "masks", "contours")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    return iadjax.fit(config_for(draw_tree(root)), root / "run")


def draw(path, seed=0, size=(40, 40), spot=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(100, 130, (*size, 3), np.uint8)
    if spot:
        pixels[8:16, 12:24] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Six images, two of them with a spot, in two sub-folders."""
    for i in range(6):
        draw(tmp_path / f"in/{'ab'[i % 2]}/{i}.png", i, spot=i in (1, 4))
    return tmp_path / "in"


def rows_of(output, name="scores.csv"):
    with (output / name).open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def contents(output):
    """Every file but the marker, which says where the output was made."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "predict.json")
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def test_a_stopped_call_continues_to_the_same_bytes(run, folder, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert iadjax.predict_files(run, folder, whole, save=ALL) == 6
    score, calls = iadjax.Run.predict, []

    def stops(self, images, extra=None):
        calls.append(len(rows_of(parts)))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, images, extra)

    monkeypatch.setattr(iadjax.Run, "predict", stops)
    with pytest.raises(KeyboardInterrupt):
        iadjax.predict_files(run, folder, parts, save=ALL)
    # a row was there before the next image was scored
    assert calls == [0, 1, 2, 3]
    # as if it had been killed while it wrote
    with (parts / "scores.csv").open("a") as file:
        file.write("b/1.p")
    (parts / "maps/b/.1.png.tiff.77.tmp").parent.mkdir(parents=True, exist_ok=True)
    (parts / "maps/b/.1.png.tiff.77.tmp").write_bytes(b"half")
    with pytest.raises(UserError, match="holds scores already; continue with --resume, or give another --output"):
        iadjax.predict_files(run, folder, parts, save=ALL)
    calls.append(None)
    monkeypatch.setattr(iadjax.Run, "predict", lambda *given: calls.append("again") or score(*given))
    assert iadjax.predict_files(run, folder, parts, save=ALL, resume=True) == 6
    assert calls.count("again") == 3
    assert contents(parts) == contents(whole)
    # nothing is left to do
    assert iadjax.predict_files(run, folder, parts, save=ALL, resume=True) == 6 and calls.count("again") == 3
    assert contents(parts) == contents(whole)


def test_what_may_not_continue(run, folder, tmp_path):
    out = tmp_path / "out"
    iadjax.predict_files(run, folder, out, resume=True)
    with pytest.raises(UserError, match=r"save was \['overlays'\], now \['maps'\]"):
        iadjax.predict_files(run, folder, out, save=["maps"], resume=True)
    with pytest.raises(UserError, match="input was .*in', now .*in/a'"):
        iadjax.predict_files(run, folder / "a", out, resume=True)
    other = dataclasses.replace(run, threshold={**run.threshold, "value": 3.0})
    with pytest.raises(UserError, match="run was .*; give another --output"):
        iadjax.predict_files(other, folder, out, resume=True)
    draw(folder / "a/00.png", 9)
    with pytest.raises(UserError, match=r"has a result of a/2.png, which the input no longer has there"):
        iadjax.predict_files(run, folder, out, resume=True)
    (folder / "a/00.png").unlink()
    (folder / "b/5.png").unlink()
    with pytest.raises(UserError, match=r"has a result of b/5.png, which the input no longer has there"):
        iadjax.predict_files(run, folder, out, resume=True)
    about = json.loads((out / "predict.json").read_text())
    for damaged in ("{", "[]", json.dumps(about | {"colours": [1]})):
        (out / "predict.json").write_text(damaged)
        with pytest.raises(UserError, match="cannot read .*predict.json"):
            iadjax.predict_files(run, folder, out, resume=True)
    # scores of something else, as in the directory of a run
    (tmp_path / "other").mkdir()
    (tmp_path / "other/scores.csv").write_text("path,category,label,score\na,b,0,1\n")
    for resume in (False, True):
        with pytest.raises(UserError, match="other holds scores already; give another --output"):
            iadjax.predict_files(run, folder, tmp_path / "other", resume=resume)
    assert (tmp_path / "other/scores.csv").read_text().startswith("path,category")


def test_a_table_is_cut_after_its_last_whole_row(tmp_path):
    path, header = tmp_path / "t.csv", ["path", "score"]
    names = ["a", 'quote " and, comma', "two\nlines", "é"]
    with Table(path, header, False) as table:
        table.write(*[[name, 0.1] for name in names])
    whole = path.read_bytes()
    ends = [len(b"path,score\n")]
    for row in (b"a,0.1\n", b'"quote "" and, comma",0.1\n', b'"two\nlines",0.1\n', "é,0.1\n".encode()):
        ends.append(ends[-1] + len(row))
    assert ends[-1] == len(whole)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Table(path, header, True) as table:
            done = max(0, sum(end <= cut for end in ends) - 1)
            assert [row[0] for row in table.rows] == names[:done], cut
            table.write(*[[name, 0.1] for name in names[done:]])
        assert path.read_bytes() == whole, cut


def test_a_file_that_cannot_be_read(run, folder, tmp_path, capsys):
    (folder / "b/1.png").write_text("no image")
    (folder / "b/9.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"the image .*b/1.png .* keeps the scores so far: .*--resume --on_error=skip"):
        iadjax.predict_files(run, folder, tmp_path / "out")
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["a/0.png", "a/2.png", "a/4.png"]
    assert not (tmp_path / "out/skipped.csv").exists()
    # the advice
    assert iadjax.predict_files(run, folder, tmp_path / "out", on_error="skip", resume=True) == 5
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["a/0.png", "a/2.png", "a/4.png", "b/3.png", "b/5.png"]
    skipped = rows_of(tmp_path / "out", "skipped.csv")
    assert [row["path"] for row in skipped] == ["b/1.png", "b/9.png"] and "cannot read the image" in skipped[0]["reason"]
    assert capsys.readouterr().err.count("skipped: ") == 2
    assert iadjax.predict_files(run, folder, tmp_path / "again", on_error="skip") == 5
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_a_full_disk_is_not_skipped(run, folder, tmp_path):
    (tmp_path / "out/overlays").mkdir(parents=True)
    (tmp_path / "out/overlays/a").write_text("a file where a folder has to be")
    with pytest.raises((UserError, OSError)):
        iadjax.predict_files(run, folder, tmp_path / "out", on_error="skip")
    assert not (tmp_path / "out/skipped.csv").exists()


def test_outputs_are_no_inputs(run, folder, capsys):
    first = folder / "results"
    assert iadjax.predict_files(run, folder, first, save=ALL) == 6
    # another output, and a folder of an earlier version without a marker
    (folder / "old/overlays").mkdir(parents=True)
    (folder / "old/scores.csv").write_text("path,score\n")
    draw(folder / "old/overlays/0.png.png")
    assert iadjax.predict_files(run, folder, folder / "b/more") == 6
    assert [row["path"] for row in rows_of(first)] == [row["path"] for row in rows_of(folder / "b/more")]
    assert "results of earlier calls, like " in capsys.readouterr().err
    # into the folder itself
    for name in ("first", "second"):
        assert iadjax.predict_files(run, folder, folder, resume=name == "second") == 6
    assert iadjax.predict_files(run, f"{folder}/**/*.png", folder / "third") == 6
    # what is asked for by name is scored
    assert iadjax.predict_files(run, first / "overlays", folder.parent / "overlays-scored") == 6


def test_a_folder_that_cannot_be_listed_is_named(folder, tmp_path, monkeypatch):
    scan = os.scandir

    def refuses(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(UserError, match=r"cannot list the folder .*/b \(Permission denied\)"):
        find(folder, tmp_path / "out")


def test_hidden_files_are_no_images(run, folder, tmp_path):
    for name in ("._0.png", ".ipynb_checkpoints/0.png", "__MACOSX/0.png"):
        draw(folder / name)
    assert iadjax.predict_files(run, folder, tmp_path / "out") == 6


NAMES = {
    "long": "x" * 240 + ".png",
    "long in UTF-8": "é" * 120 + ".png",
    "not UTF-8": os.fsdecode(b"caf\xe9.png"),
    "markup": "<img src=x onerror=alert(1)>.png",
    "a new line": "two\nlines.png",
    "dots": "a..png",
    "backslashes": "a\\..\\x.png",
    "spaces": " a b .png",
    "quotes": "a\"b,c'd.png",
}


def test_names_of_any_kind_are_written_inside_the_output(run, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate(NAMES.values()):
        draw(folder / name, seed)
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    assert iadjax.predict_files(run, folder, out, save=ALL) == len(NAMES)
    paths = {row["path"] for row in rows_of(out)}
    replaced = {row["path"]: row["name"] for row in rows_of(out, "names.csv")}
    shown = {name: name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in NAMES.values()}
    assert paths == set(shown.values())
    assert set(replaced) == {shown[NAMES[key]] for key in ("long", "long in UTF-8", "not UTF-8", "a new line")}
    for path in paths:
        for kind, suffix in (("overlays", "png"), ("maps", "tiff"), ("masks", "png"), ("contours", "json")):
            assert (out / kind / f"{replaced.get(path, path)}.{suffix}").is_file(), path
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} - before <= {out}
    assert iadjax.predict_files(run, folder, out, save=ALL, resume=True) == len(NAMES)


def test_safe_names_differ_and_stay_below():
    names = ["x" * 240 + "1", "x" * 240 + "2", "a/" + "y" * 250, os.fsdecode(b"\xe9"), os.fsdecode(b"\xe8"), "_", "plain/ü.png"]
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names) and safe[-1] == names[-1] and safe[2].startswith("a/")
    assert all(len(part.encode()) <= 200 for name in safe for part in name.split("/"))


def test_files_of_every_depth_have_overlays(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    kinds = {
        "grey": pixels,
        "rgb": np.dstack([pixels] * 3),
        "alpha": np.dstack([pixels] * 4),
        "deep": pixels.astype(np.uint16) * 257,
    }
    (tmp_path / "in").mkdir()
    for name, array in kinds.items():
        Image.fromarray(array).save(tmp_path / f"in/{name}.png")
    assert iadjax.predict_files(run, tmp_path / "in", tmp_path / "out", save=ALL, overlay_size=20) == 4
    rows = {row["path"]: float(row["score"]) for row in rows_of(tmp_path / "out")}
    assert rows["grey.png"] == rows["rgb.png"] == rows["alpha.png"] and rows["deep.png"] == pytest.approx(
        rows["rgb.png"], rel=0.02
    )
    shown = {}
    for name in kinds:
        with Image.open(tmp_path / f"out/overlays/{name}.png.png") as overlay:
            shown[name] = np.asarray(overlay).astype(int)
    assert shown["grey"].shape == (15, 20, 3)
    assert all(np.abs(shown[name] - shown["rgb"]).max() <= 3 for name in kinds)


def test_one_stem_with_two_suffixes_keeps_two_results(run, tmp_path):
    draw(tmp_path / "in/a.png", 0)
    draw(tmp_path / "in/a.jpg", 1)
    assert iadjax.predict_files(run, tmp_path / "in", tmp_path / "out", save=ALL) == 2
    for kind in ALL:
        first, second = sorted((tmp_path / "out" / kind).iterdir())
        assert first.name.startswith("a.jpg.") and second.name.startswith("a.png.")
    first, second = (tifffile.imread(tmp_path / f"out/maps/a.{suffix}.tiff") for suffix in ("jpg", "png"))
    assert not np.array_equal(first, second)


def inside(polygons, size):
    """Which pixel centres lie in polygons with holes, by counting crossings of a ray to the right."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    crossings = np.zeros(size, int)
    for ring in (ring for polygon in polygons for ring in polygon):
        for (x0, y0), (x1, y1) in zip(ring[:-1], ring[1:], strict=True):
            between = (y0 > y) != (y1 > y)
            if y0 != y1:
                crossings += between & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return crossings % 2 == 1


@pytest.mark.parametrize("crop", [0, 24])
def test_maps_masks_and_contours_say_the_same(run, tmp_path, crop):
    run = dataclasses.replace(run, model=run.model._replace(transform=run.transform._replace(crop=crop)))
    image = draw(tmp_path / "one.png", size=(50, 64), spot=True)
    prediction = run.predict(image)
    limit = float(np.quantile(prediction.map, 0.8))
    iadjax.predict_files(run, image, tmp_path / "out", save=ALL, pixel_threshold=limit, overlay_size=0)
    whole = np.full((50, 64), np.nan, np.float32)
    values = run.transform.map_back(prediction.map[0], 50, 64)
    left, top = run.transform.origin(50, 64)
    whole[top : top + values.shape[0], left : left + values.shape[1]] = values
    found = tifffile.imread(tmp_path / "out/maps/one.png.tiff")
    assert found.dtype == np.float32 and np.isnan(found).any() == bool(crop)
    np.testing.assert_array_equal(found, whole)
    with Image.open(tmp_path / "out/masks/one.png.png") as mask:
        marked = np.asarray(mask)
    assert marked.dtype == np.uint8 and 0 < marked.mean() < 255
    np.testing.assert_array_equal(marked, np.where(whole >= limit, 255, 0))
    facts = json.loads((tmp_path / "out/contours/one.png.json").read_text())
    assert (facts["image"], facts["height"], facts["width"], facts["threshold"]) == ("one.png", 50, 64, limit)
    polygons = [polygon for region in facts["regions"] for polygon in region["polygons"]]
    np.testing.assert_array_equal(inside(polygons, (50, 64)), marked == 255)
    assert sum(region["area"] for region in facts["regions"]) == (marked == 255).sum()
    assert facts["regions"][0]["score"] == pytest.approx(np.nanmax(whole))
    with Image.open(tmp_path / "out/overlays/one.png.png") as overlay:
        assert overlay.size == (64, 50)


def test_options_are_checked_before_any_work(run, folder, tmp_path, monkeypatch):
    import importlib.util

    bare = dataclasses.replace(run, threshold=None)
    cases = [
        (run, {"save": ["overlay"]}, "called 'overlay'; did you mean 'overlays'"),
        (run, {"on_error": "ignore"}, "on_error must be stop or skip"),
        (run, {"overlay_size": -1}, "overlay_size must be"),
        (bare, {"save": ["masks"]}, "this run has none: give --pixel_threshold=VALUE"),
        (run, {"save": ["masks"], "pixel_threshold": float("nan")}, "pixel_threshold must be a finite number"),
    ]
    for each, options, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            iadjax.predict_files(each, folder, tmp_path / "out", **options)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("av", "contourpy") else find(name))
    with pytest.raises(UserError, match=r'contours need contourpy.* python -m pip install "iadjax\[contours\]"'):
        iadjax.predict_files(run, folder, tmp_path / "out", save=["contours"])
    (folder / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r'a video needs PyAV.* python -m pip install "iadjax\[video\]"'):
        iadjax.predict_files(run, folder / "a.mp4", tmp_path / "out")
    for source, sentence in (
        (folder / "nothing", "there is no file or folder"),
        (f"{folder}/*.bmp", "no file fits the pattern"),
    ):
        with pytest.raises(UserError, match=sentence):
            iadjax.predict_files(run, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out is a file; give a directory with --output"):
        iadjax.predict_files(run, folder, tmp_path / "out")


def test_a_run_without_held_out_images_predicts_with_colours_of_these(run, folder, tmp_path, capsys):
    bare = dataclasses.replace(run, threshold=None)
    iadjax.predict_files(bare, folder, tmp_path / "out", save=("overlays", "masks"), pixel_threshold=1.0)
    assert "this run holds no range of colours" in capsys.readouterr().err
    assert list(rows_of(tmp_path / "out")[0]) == ["path", "score"]
    assert len(list((tmp_path / "out/overlays").rglob("*.png"))) == 6 and (tmp_path / "out/legend.png").is_file()


def test_sizes_that_compile_anew_are_counted(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "_MANY_SIZES", 3)
    free = dataclasses.replace(run, model=run.model._replace(transform=run.transform._replace(resize=0)))
    for i in range(4):
        draw(tmp_path / f"in/{i}.png", size=(32 + 4 * (i % 3), 40))
    iadjax.predict_files(free, tmp_path / "in", tmp_path / "out", save=())
    said = capsys.readouterr().err
    assert "3 sizes of images so far, and the detector is compiled for each" in said
    assert "images of 3 sizes after data.resize and data.crop: the detector was compiled for each" in said
    iadjax.predict_files(run, tmp_path / "in", tmp_path / "resized", save=())
    assert "sizes" not in capsys.readouterr().err


def test_frames_by_a_pattern(run, folder, tmp_path):
    assert iadjax.predict_files(run, f"{folder}/*/[0-3].png", tmp_path / "out") == 4
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]
    assert iadjax.predict_files(run, folder / "a/0.png", tmp_path / "one") == 1
    # a name that is a pattern and a file is the file
    draw(folder / "a[0].png")
    assert iadjax.predict_files(run, folder / "a[0].png", tmp_path / "brackets") == 1


@pytest.fixture
def video(tmp_path):
    """Seven frames, the fifth with a spot."""
    av = pytest.importorskip("av", reason="needs the extra video")
    path = tmp_path / "line.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(7):
            pixels = np.full((32, 48, 3), 115, np.uint8)
            if number == 4:
                pixels[8:16, 12:24] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_a_video_is_scored_frame_by_frame(run, video, tmp_path, capsys):
    assert iadjax.predict_files(run, video, tmp_path / "out") == 7
    rows = rows_of(tmp_path / "out")
    assert [row["path"] for row in rows] == [f"line.mp4#{i:06d}" for i in range(7)]
    assert np.argmax([float(row["score"]) for row in rows]) == 4
    with Image.open(tmp_path / "out/overlays/line.mp4#000004.png") as overlay:
        assert overlay.size == (48, 32)
    # cut and continued
    content = (tmp_path / "out/scores.csv").read_bytes()
    (tmp_path / "out/scores.csv").write_bytes(content[:60])
    assert iadjax.predict_files(run, video, tmp_path / "out", resume=True) == 7
    assert (tmp_path / "out/scores.csv").read_bytes() == content
    # in a folder of images it is named; a pattern takes it
    draw(video.parent / "in/a.png")
    video.rename(video.parent / "in/line.mp4")
    assert iadjax.predict_files(run, tmp_path / "in", tmp_path / "images") == 1
    assert "left out: 1 videos, which are given one by one, like line.mp4" in capsys.readouterr().err
    assert iadjax.predict_files(run, f"{tmp_path}/in/*", tmp_path / "both") == 8


def test_a_video_that_breaks_is_named(run, tmp_path):
    pytest.importorskip("av", reason="needs the extra video")
    draw(tmp_path / "in/z.png")
    (tmp_path / "in/a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"cannot read the video .*a.mp4 "):
        iadjax.predict_files(run, f"{tmp_path}/in/*", tmp_path / "out")
    assert iadjax.predict_files(run, f"{tmp_path}/in/*", tmp_path / "out2", on_error="skip") == 1
    assert rows_of(tmp_path / "out2", "skipped.csv")[0]["path"] == "a.mp4"


def script(run, folder, out, *more):
    arguments = [f"--workdir={run.workdir}", f"--input={folder}", f"--output={out}", *more]
    return [sys.executable, ROOT / "scripts/predict.py", *arguments]


def test_the_script_killed_interrupted_and_continued(run, tmp_path):
    folder = tmp_path / "in"
    for i in range(1200):
        draw(folder / f"{i:04d}.png", i, size=(8, 8))
    for name, number, status in (("killed", signal.SIGKILL, -signal.SIGKILL), ("stopped", signal.SIGINT, 130)):
        out = tmp_path / name
        # a suite that a shell runs in the background ignores interrupts, and so would its children
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(script(run, folder, out), stderr=subprocess.PIPE, text=True, preexec_fn=heed)
        until = time.monotonic() + 120
        while not (out / "scores.csv").is_file() or (out / "scores.csv").read_bytes().count(b"\n") < 4:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == status, said
        assert 3 <= len(rows_of(out)) < 1200
        if name == "stopped":
            assert said.strip() == f"interrupted; {out} keeps the scores so far: go on with --resume"
    (folder / "1199.png").write_text("broken")
    done = subprocess.run(script(run, folder, out, "--resume", "--on_error=skip"), capture_output=True, text=True)
    assert done.returncode == 3 and "1199 images" in done.stdout, done.stderr
    iadjax.predict_files(run, folder, tmp_path / "whole", on_error="skip")
    assert contents(out) == contents(tmp_path / "whole")
