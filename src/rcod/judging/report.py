"""How does an evaluation become one page that shows the trade?

The page is one file that asks nothing of any network: numbers, styles, script and crops lie
inside. The CSV holds every score, the JSON everything that the page shows but the crops.

    Found -> means, intervals, paired differences -.
          -> places where systems differ most -----+-> report.html, report.json, scores.csv
    published rows (as their papers print them) ---'
"""

import base64
import csv
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rcod import __version__
from rcod.judging.datasets import Dataset, pixels
from rcod.judging.evaluate import Found, Row
from rcod.judging.intervals import draw_weights, interval
from rcod.judging.judge import MEASURES, fingerprint
from rcod.judging.peers import bicubic
from rcod.pixels.images import Photo, to_pil
from rcod.pixels.metrics import luma

CROP = 128  # pixels of a result shown under the slider
SHOWN = 6  # pictures of a set
FEW = 6  # pictures, below which there are no intervals
QUALITY = 92  # of the crops, WebP
EVEN = ("psnr", "ssim", "lpips-hed", "niqe", "detail")  # measures that say how much two differ


def write_report(found: Found, out: Path) -> Path:
    """Write scores.csv, report.json and report.html; returns the page's path."""
    save_csv(found, out / "scores.csv")
    facts = summary(found)
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    shown = facts | {"pictures": {one.name: most_different(found, one) for one in found.datasets}}
    page = out / "report.html"
    page.write_text(_page(shown), encoding="utf-8")
    return page


def save_csv(found: Found, path: Path) -> None:
    """Write one row per set, picture and system; blank where a measure could not run."""
    names = [name for name in MEASURES if name != "fid"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["set", "picture", "system", "timestep", "estimate", *names])
        for row in found.rows:
            step = row.made.timestep if row.made else None
            estimate = row.made.estimate if row.made else None
            values = [f"{row.values[n]:.6f}" if n in row.values else None for n in names]
            guess = None if estimate is None else f"{estimate:.6f}"
            table.writerow([row.dataset, row.picture, row.label, step, guess, *values])


def summary(found: Found) -> dict[str, object]:
    """Everything the page says in numbers."""
    return {
        "rcod": __version__,
        "fingerprint": fingerprint(found.protocol),
        "protocol": found.protocol,
        "missing": found.missing,
        "measures": {name: one._asdict() for name, one in MEASURES.items()},
        "systems": list(found.labels),
        "sets": [_summed(found, dataset) for dataset in found.datasets],
    }


def _summed(found: Found, dataset: Dataset) -> dict[str, object]:
    """One set: means and differences with intervals, values, costs, published rows."""
    rows = {label: found.of(dataset.name, label) for label in found.labels}
    weights = draw_weights(len(dataset.pairs))
    values: dict[str, dict[str, list[float]]] = {}
    for name in MEASURES:
        for label, mine in rows.items():
            if mine and all(name in row.values for row in mine):
                column = [row.values[name] for row in mine]
                values.setdefault(name, {})[label] = column
    return {
        "name": dataset.name,
        "pictures": [pair.name for pair in dataset.pairs],
        "values": _rounded(values),
        "means": {name: {label: _sure(column, weights) for label, column in columns.items()}
                  for name, columns in values.items()},
        "differences": {
            name: {label: {other: _sure([a - b for a, b in zip(mine, theirs, strict=True)],
                                        weights)
                           for other, theirs in columns.items() if other != label}
                   for label, mine in columns.items()}
            for name, columns in values.items()},
        "fid": {label: found.fid[(dataset.name, label)] for label in found.labels
                if (dataset.name, label) in found.fid},
        "costs": {label: cost for label in found.labels
                  if (cost := found.cost(dataset.name, label))},
        "published": published(dataset.name),
    }  # fmt: skip


def published(dataset: str) -> list[dict[str, object]]:
    """What papers print for a known set; they are context, not measured here."""
    text = (files("rcod") / "page" / "published.csv").read_text(encoding="utf-8")
    rows: list[dict[str, object]] = []
    for row in csv.DictReader(io.StringIO(text)):
        if row["set"] == dataset:
            values = {k: float(v) for k, v in row.items() if k in MEASURES and v}
            rows.append({"system": row["system"], "values": values})
    return rows


def most_different(found: Found, dataset: Dataset) -> list[dict[str, object]]:
    """The pictures on which systems differ most, each with crops of where they do."""
    rows: dict[str, list[Row]] = {}
    for row in found.rows:
        if row.dataset == dataset.name:
            rows.setdefault(row.picture, []).append(row)
    pairs = {pair.name: pair for pair in dataset.pairs}
    spans = {name: sum(_span(mine, measure) for measure in EVEN) for name, mine in rows.items()}
    chosen = sorted(spans, key=lambda name: (-spans[name], name))[:SHOWN]
    entries: list[dict[str, object]] = []
    for name in chosen:
        pair = pairs[name]
        images = {row.label: pixels(row.file) for row in rows[name]}
        shown = dict(images)
        if "bicubic" not in shown:
            shown = {"bicubic": bicubic(pixels(pair.lr))} | shown
        top, left, side = differing_place(list(shown.values()))
        if pair.hr is not None:
            shown = {"true": pixels(pair.hr)} | shown
        area = (slice(None), slice(top, top + side), slice(left, left + side))
        height, width = next(iter(images.values())).shape[1:]
        entries.append(
            {
                "name": name,
                "size": [width, height],
                "place": [left, top, side],
                "thumb": _webp(next(iter(shown.values())), 192),
                "crops": {label: _webp(image[area]) for label, image in shown.items()},
                "scores": _rounded({row.label: row.values for row in rows[name]}),
            }
        )
    return entries


def _sure(values: Sequence[float], weights: np.ndarray) -> Sequence[float]:
    """Mean and interval; of few pictures the mean alone, since they say nothing of others."""
    return interval(values, weights) if len(values) >= FEW else [float(np.mean(values))]


def _span(rows: Sequence[Row], measure: str) -> float:
    """How far systems lie apart on a picture by one measure, as a share of its usual size."""
    values = [row.values[measure] for row in rows if measure in row.values]
    usual = sum(map(abs, values)) / len(values) if values else 0
    return (max(values) - min(values)) / usual if usual else 0


def differing_place(images: Sequence[Tensor]) -> tuple[int, int, int]:
    """Top, left and side of the square where images (3, H, W) differ most in brightness."""
    stack = torch.cat([luma(image[None]) for image in images])[:, 0].float()  # (N, H, W)
    height, width = stack.shape[1:]
    side = min(CROP, height, width)
    spread = stack.std(0, correction=0)[None, None]  # (1, 1, H, W)
    means = torch.nn.functional.avg_pool2d(spread, side, stride=8)[0, 0]
    at = int(means.argmax())
    return at // means.shape[1] * 8, at % means.shape[1] * 8, side


def _webp(image: Tensor, longest: int | None = None) -> str:
    """An image (3, H, W) as a data address, made smaller where asked."""
    picture = to_pil(Photo(image))
    if longest is not None:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    blob = io.BytesIO()
    picture.save(blob, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(blob.getvalue()).decode()


def _rounded(tree: object) -> object:
    """The same numbers with six digits behind the point: enough to see, and half the file."""
    if isinstance(tree, float):
        return round(tree, 6)
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    return [_rounded(one) for one in tree] if isinstance(tree, list) else tree


def _page(facts: dict[str, object]) -> str:
    """Put the template, the styles, the script and the facts into one file."""
    folder = files("rcod") / "page"
    parts = {name: (folder / name).read_text(encoding="utf-8")
             for name in ("report.html", "report.css", "report.js")}  # fmt: skip
    data = json.dumps(facts, ensure_ascii=False).replace("</", "<\\/")
    names = (
        ", ".join(str(one) for one in facts["systems"])
        if isinstance(facts["systems"], list)
        else ""
    )
    page = parts["report.html"].replace("{{title}}", html.escape(names))
    page = page.replace("{{style}}", parts["report.css"]).replace("{{data}}", data)
    return page.replace("{{script}}", parts["report.js"])
