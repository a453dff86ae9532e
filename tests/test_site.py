"""The site is built without a warning: links, anchors and the pages that are made of the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from iadjax import detectors, losses

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    output = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def test_the_home_page_is_the_readme(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "python scripts/train.py" in text
    shown = [source for source in re.findall(r'<img [^>]*src="([^"]+)"', text) if not source.startswith("http")]
    assert "images/strip.jpg" in shown and all((site / source).is_file() for source in shown)


def test_every_detector_is_on_the_tree_and_in_the_reference(site):
    tree = (site / "detectors/index.html").read_text(encoding="utf-8")
    reference = (site / "api/detectors/index.html").read_text(encoding="utf-8")
    for name, module in detectors.MODULES.items():
        assert f"api/detectors/#{module}.{name}" in tree and f'id="{module}.{name}"' in reference


def test_the_table_of_losses_has_every_loss_and_who_uses_it(site):
    page = (site / "api/losses/index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr>\s*<td><code>([\w.]+)</code></td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", page, re.DOTALL)
    users = {name: text.split(", ") for name, _, text in rows}
    assert {name.removeprefix("losses.") for name in users if name.startswith("losses.")} == set(losses.__all__)
    assert "draem" in users["losses.ssim"] and "devnet" in users["losses.deviation"]
    assert "rdpp" in users["ops.sinkhorn_divergence"] and "cutpaste" not in users["losses.ssim"]


def test_every_page_is_linked(site):
    """A page that no other links to does not exist for readers."""
    home = (site / "index.html").read_text(encoding="utf-8")
    pages = [page.parent.relative_to(site).as_posix() for page in site.rglob("index.html") if "gallery/" not in str(page)]
    assert len(pages) > 20
    for page in pages:
        assert page == "." or f'href="{page}/"' in home, page
