"""Progress lines where there is no terminal."""

import re

from iadjax import progress


def test_lines_with_rate_and_time_left(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.track("fit", 100, "image") as report:
        # resumed at 40: ten images in eleven seconds
        report(40, 100)
        clock[0] += 11
        report(51, 100)
        clock[0] += 1
        report(52, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.fullmatch(r"fit: 51/100 images, 1.0/s, 49 s left", lines[0])


def test_slow_work_has_an_estimate_after_two_images(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.track("predict", 200, "image") as report:
        for done in range(1, 8):
            report(done, 200)
            clock[0] += 2.5
    assert capsys.readouterr().err.splitlines() == [
        "predict: 2/200 images, 2.5 s each, 495 s left",
        "predict: 6/200 images, 2.5 s each, 485 s left",
    ]
