"""Files are written whole, whatever their names are."""

import os

from iadjax import files


def test_a_name_of_any_length_is_written(tmp_path):
    for number in (10, 219, 220, 255):
        path = tmp_path / ("x" * number)
        files.write_text(path, "text")
        assert path.read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 4


def test_bytes_of_a_name_that_are_no_text_are_written_as_text(tmp_path):
    files.write_text(tmp_path / "a", os.fsdecode(b"caf\xe9 ") + "é")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "caf\\xe9 é"
