"""The report is opened in a real browser: it draws, slides, sorts, and asks for nothing."""

import json
import re
from pathlib import Path

import pytest
import torch
from browser import chromium, complaints, hosts, wait_for

from rcod.judging.datasets import Dataset, open_dataset
from rcod.judging.evaluate import Found, Row
from rcod.judging.journal import Made
from rcod.judging.judge import Judge
from rcod.judging.peers import bicubic
from rcod.judging.report import differing_place, published, write_report
from rcod.pixels.images import Photo, write

LABELS = ("tiny@fidelity", "tiny@neutral", "tiny@realism", "bicubic", "<b>theirs</b>")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The report of a small evaluation whose numbers are known."""
    rng = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    folder = tmp_path / "set"
    for i in range(6):
        lr = torch.rand(3, 40, 40, generator=rng)
        hr = bicubic(lr)
        for role, image in (("LR", lr), ("HR", hr)):
            (folder / role).mkdir(parents=True, exist_ok=True)
            write(folder / role / f"a_{i}.png", Photo(image))
        for k, label in enumerate(LABELS):
            file = folder / f"{k}-{i}.png"
            write(file, Photo((hr + 0.1 * k * torch.rand(hr.shape, generator=rng)).clamp(0, 1)))
            made = Made(dataset="realsr", label=label, picture=f"a_{i}", identity="", sha256="",
                        seconds=0.1 + k, peak_mb=300)  # fmt: skip
            values = {"psnr": 30.0 - k + 0.1 * i, "ssim": 0.9 - 0.01 * k, "niqe": 5.0 - k / 3}
            rows.append(Row(dataset="realsr", label=label, picture=f"a_{i}", file=file,
                            values=values, made=made))  # fmt: skip
    dataset = Dataset("realsr", open_dataset(f"set={folder}", Path()).pairs)
    missing = {"lpips": "needs <weights>"}
    found = Found((dataset,), LABELS, tuple(rows), {}, missing, Judge().protocol())
    return write_report(found, tmp_path)


def test_page_stands_alone(page: Path):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"'](?!data:)", text)
    assert "<b>theirs</b>" not in text.split('<script type="application/json"')[0]
    assert "default-src 'none'" in text


def test_json_holds_intervals_and_paired_differences(page: Path):
    facts = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    (one,) = facts["sets"]
    mean, low, high = one["means"]["psnr"]["bicubic"]
    assert mean == pytest.approx(27.25) and 27 <= low < mean < high <= 27.5
    difference = one["differences"]["psnr"]["tiny@fidelity"]["bicubic"]
    assert difference == pytest.approx([3, 3, 3])  # the same on every picture: no doubt left
    assert one["costs"]["bicubic"] == pytest.approx([3.1, 300])
    assert len(facts["fingerprint"]) == 12


def test_published_rows_are_those_of_the_papers():
    rows = {str(row["system"]): row["values"] for row in published("realsr")}
    assert rows["OSEDiff"] == {
        "psnr": 25.15, "ssim": 0.7341, "lpips": 0.2921, "dists": 0.2128, "fid": 123.49,
        "niqe": 5.648, "musiq": 69.09, "maniqa": 0.6326, "clipiqa": 0.6693,
    }  # fmt: skip
    assert "RCOD_O realism" in rows and published("mine") == []


def test_systems_differ_most_where_they_do():
    a, b = torch.zeros(3, 256, 256), torch.zeros(3, 256, 256)
    b[:, 96:224, 64:192] = 1
    assert differing_place([a, b]) == (96, 64, 128)


def test_page_works_in_a_browser(page: Path, tmp_path: Path):
    with chromium(1280, 900, tmp_path) as browser:
        browser.get(page.as_uri())
        wait_for(browser, "document.querySelectorAll('#pictures figure').length === 6")
        run = browser.execute_script
        rows = "document.querySelectorAll('#table tbody:not([id]) tr')"
        column = f"[...{rows}].map(row => row.cells[0].textContent)"
        head = "document.querySelectorAll('#table thead button')"
        assert run(f"return {column}")[0] == "tiny fidelity"
        run(f"{head}[0].click()")
        assert run(f"return {column}")[0] == "tiny fidelity"  # the highest PSNR first
        run(f"{head}[0].click()")
        assert run(f"return {column}")[0] == "<b>theirs</b>"
        sorting = "document.querySelector('#table thead th[aria-sort]').ariaSort"
        assert run(f"return {sorting}") == "ascending"
        run(
            "const s = document.querySelector('.pair input'); s.value = 20;"
            "s.dispatchEvent(new Event('input'))"
        )
        clip = "getComputedStyle(document.querySelector('.pair .right')).clipPath"
        assert run(f"return {clip}") == "inset(0px 0px 0px 20%)"
        run("const v = document.getElementById('versus'); v.value = 'bicubic';"
            "v.dispatchEvent(new Event('change'))")  # fmt: skip
        assert "+3.00" in run("return document.getElementById('table').textContent")
        assert run("return document.querySelectorAll('#plane polyline').length") == 1
        assert run("return document.querySelectorAll('#spread circle').length") == 30
        assert "LPIPS is blank: needs <weights>" in run(
            "return document.getElementById('missing').textContent"
        )
        assert run("return document.querySelectorAll('#published tr').length") == 19
        assert complaints(browser) == []
        assert hosts(browser) == set()


def test_page_fits_a_phone_in_the_dark(page: Path, tmp_path: Path):
    with chromium(390, 800, tmp_path, dark=True) as browser:
        browser.get(page.as_uri())
        wait_for(browser, "document.querySelectorAll('#pictures figure').length === 6")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        labels = "[...document.querySelectorAll('#plane text.halo:not(.faint)')]"
        ends = f"return {labels}.map(one => one.getBBox()).map(box => [box.x, box.x + box.width])"
        places = browser.execute_script(ends)
        svg = "return document.querySelector('#plane svg').viewBox.baseVal.width"
        wide = browser.execute_script(svg)
        assert len(places) == len(LABELS)
        assert all(left >= 0 and right <= wide for left, right in places), places
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(23, 24, 26)"


def test_page_fits_a_sheet_of_paper(page: Path, tmp_path: Path):
    with chromium(718, 1000, tmp_path) as browser:  # A4 within its margins
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        browser.get(page.as_uri())
        wait_for(browser, "document.querySelectorAll('#pictures figure').length === 6")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 718
