"""An evaluation is whole, repeats to the byte, and never does finished work again."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from running import ENVIRONMENT

from rcod.errors import RcodError
from rcod.judging import evaluate as evaluating
from rcod.judging import judge
from rcod.judging.contenders import described, parse
from rcod.judging.datasets import Dataset, Pair, open_dataset, thin_out
from rcod.judging.evaluate import Found, run
from rcod.judging.journal import Made, Scored, append, read_lines
from rcod.judging.judge import Judge
from rcod.judging.peers import bicubic, perform
from rcod.judging.report import save_csv
from rcod.networks.checkpoint import find_weights, read_tensors
from rcod.pixels.images import Photo, write
from rcod.pixels.metrics import eight_bit

needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the bundled model's weights are not there yet"
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    for i in range(3):
        lr = eight_bit(0.2 + 0.6 * torch.rand(3, 12, 12, generator=rng))
        for role, image in (("LR", lr), ("HR", bicubic(lr)), ("theirs", bicubic(lr).sqrt())):
            (tmp_path / "set" / role).mkdir(parents=True, exist_ok=True)
            write(tmp_path / "set" / role / f"a_{i}.png", Photo(image))
    return open_dataset(f"set={tmp_path / 'set'}", Path())


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Contenders work in this process, which is faster; the list tells what they were given."""
    asked: list[str] = []

    def child(given: str) -> list[dict[str, object]]:
        asked.append(given)
        jobs = json.loads(given)["jobs"]
        return [dict(work) for work in perform(parse("bicubic"), jobs, "cpu", "float32")]

    monkeypatch.setattr(evaluating, "_child", child)
    return asked


def contend(dataset: Dataset, out: Path) -> Found:
    folder = dataset.pairs[0].lr.parents[1] / "theirs"
    return run([dataset], [parse("bicubic"), parse(f"dir:theirs={folder}")], out, Judge())


def test_every_system_is_scored_on_every_picture(
    dataset: Dataset, tmp_path: Path, in_process: list[str]
):
    found = contend(dataset, tmp_path / "out")
    assert found.labels == ("bicubic", "theirs")
    assert [row.picture for row in found.of("set", "theirs")] == ["a_0", "a_1", "a_2"]
    assert found.means("set", "bicubic")["psnr"] == pytest.approx(80)  # the truth is bicubic
    assert found.means("set", "theirs")["psnr"] < 30
    assert found.cost("set", "theirs") is None
    cost = found.cost("set", "bicubic")
    assert cost is not None and cost[0] > 0 and cost[1] > 50


def test_a_file_is_no_folder_for_it_all(dataset: Dataset):
    with pytest.raises(RcodError, match="must be a folder to write to, got: File exists"):
        contend(dataset, dataset.pairs[0].lr)


def test_two_runs_give_identical_csvs(dataset: Dataset, tmp_path: Path, in_process: list[str]):
    for name in ("one", "two"):
        save_csv(contend(dataset, tmp_path / name), tmp_path / f"{name}.csv")
    text = (tmp_path / "one.csv").read_bytes()
    assert text == (tmp_path / "two.csv").read_bytes()
    assert len(text.splitlines()) == 1 + 3 * 2


def test_interrupted_run_repeats_nothing_finished(
    dataset: Dataset, tmp_path: Path, in_process: list[str]
):
    out = tmp_path / "out"
    first = contend(dataset, out)
    journal = out / "work.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:2], lines[2][:40]]))  # torn in its third line
    scores = (out / "scores.jsonl").read_text()
    again = contend(dataset, out)
    jobs = [[job[0] for job in json.loads(given)["jobs"]] for given in in_process]
    assert jobs == [["a_0", "a_1", "a_2"], ["a_2"]]
    assert (out / "scores.jsonl").read_text() == scores  # the same picture, so the same score
    assert [row.values for row in again.rows] == [row.values for row in first.rows]
    assert len(read_lines(journal, Made)) == 3


def test_changed_result_is_made_and_scored_anew(
    dataset: Dataset, tmp_path: Path, in_process: list[str]
):
    out = tmp_path / "out"
    contend(dataset, out)
    write(out / "pictures" / "set" / "bicubic" / "a_1.png", Photo(torch.zeros(3, 48, 48)))
    found = contend(dataset, out)
    assert len(json.loads(in_process[1])["jobs"]) == 1
    assert found.means("set", "bicubic")["psnr"] == pytest.approx(80)


def test_scores_of_fewer_measures_are_not_taken_for_all(
    dataset: Dataset, tmp_path: Path, in_process: list[str]
):
    for wanted in (("psnr",), ("psnr", "ssim")):
        judge = Judge(wanted=wanted)
        found = run([dataset], [parse("bicubic")], tmp_path / "out", judge)
        assert tuple(found.means("set", "bicubic")) == wanted
    assert len(in_process) == 1  # pictures don't depend on what is measured of them


def test_set_without_truths_has_no_paired_scores(tmp_path: Path, in_process: list[str]):
    write(tmp_path / "a.png", Photo(torch.rand(3, 12, 12)))
    alone = Dataset("alone", (Pair("a", tmp_path / "a.png", None),))
    found = run([alone], [parse("bicubic")], tmp_path / "out", Judge())
    assert set(found.means("alone", "bicubic")) == {"detail"}
    assert found.missing["psnr"] == "a: there is no true picture to compare with"
    assert any(line.startswith("PSNR is blank: a:") for line in found.table())
    (tmp_path / "theirs").mkdir()
    write(tmp_path / "theirs" / "a.png", Photo(torch.rand(3, 50, 50)))
    with pytest.raises(RcodError, match=r"1 can't be: a\.png is 12 x 12"):
        run([alone], [parse(f"dir:theirs={tmp_path / 'theirs'}")], tmp_path / "out", Judge())


def test_absent_results_and_double_names_are_named(dataset: Dataset, tmp_path: Path):
    folder = dataset.pairs[0].lr.parents[1] / "theirs"
    (folder / "a_2.png").unlink()
    with pytest.raises(RcodError, match="none for 1 of 3: a_2"):
        run([dataset], [parse(f"dir:theirs={folder}")], tmp_path / "out", Judge())
    (folder / "a_1_SR.png").write_bytes((folder / "a_1.png").read_bytes())
    with pytest.raises(RcodError, match=r"two files of one picture, a_1\.png and a_1_SR\.png"):
        run([thin_out(dataset, 2)], [parse(f"dir:theirs={folder}")], tmp_path / "out", Judge())
    with pytest.raises(RcodError, match="names must differ, got bicubic twice"):
        run([dataset], [parse("bicubic"), parse("bicubic")], tmp_path / "out", Judge())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tinny", "a system must be bicubic, tiny"),
        ("dir:x=nowhere", "is given as dir:NAME=FOLDER"),
        ("tiny@2", "a level must be fidelity"),
        ("a/b=tiny", "a system's name must be letters"),
    ],
)
def test_wrong_systems_are_named(text: str, words: str):
    with pytest.raises(RcodError, match=words):
        parse(text)


def test_systems_are_known_by_their_files(tmp_path: Path):
    (tmp_path / "net.param").write_text("7767517\n")
    with pytest.raises(RcodError, match=r"needs net\.bin beside it"):
        parse(str(tmp_path / "net.param"))
    (tmp_path / "net.bin").write_bytes(b"")
    assert parse(f"Net={tmp_path / 'net.param'}").kind == "ncnn"
    (tmp_path / "swin.pth").write_bytes(b"")
    assert parse(str(tmp_path / "swin.pth")).kind == "spandrel"


@needs_tiny
def test_a_model_has_a_label_for_each_level():
    assert parse("tiny").labels == tuple(
        f"tiny@{level}" for level in ("fidelity", "neutral", "realism", "auto")
    )
    assert parse("mine=tiny@0.25,auto").labels == ("mine@0.25", "mine@auto")


@needs_tiny
def test_a_process_of_its_own_makes_the_levels(dataset: Dataset, tmp_path: Path):
    one = Dataset("set", dataset.pairs[:1])
    found = run([one], [parse("tiny@fidelity,auto")], tmp_path / "out", Judge(), "cpu", "float32")
    steps = [row.made.timestep for row in found.rows if row.made]
    system, _ = read_tensors(find_weights("tiny"))
    assert steps[0] == system.groups.timesteps[-1] and len(steps) == 2
    assert all(row.file.is_file() and row.values["psnr"] > 10 for row in found.rows)


@needs_tiny
def test_a_killed_evaluation_goes_on_and_ends_as_an_unbroken_one(dataset: Dataset, tmp_path: Path):
    given = dataset.pairs[0].lr.parents[1]

    def begin(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rcod", "evaluate", f"set={given}", "-o", str(out)]
        options = ["--system", "tiny@0,0.5,1,auto", "--system", "bicubic", "--metrics", "psnr,ssim"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*command, *options], stdout=quiet, env=ENVIRONMENT)

    journal = tmp_path / "killed" / "work.jsonl"
    process = begin(journal.parent)
    while process.poll() is None and len(read_lines(journal, Made)) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = len(read_lines(journal, Made))
    assert 2 <= before < 15, "killed too late to show anything"
    for folder in ("killed", "unbroken"):
        assert begin(tmp_path / folder).wait() == 0
    made = [(row.label, row.picture) for row in read_lines(journal, Made)]
    assert len(made) == len(set(made)) == 3 * 5
    csvs = [(tmp_path / folder / "scores.csv").read_bytes() for folder in ("killed", "unbroken")]
    assert csvs[0] == csvs[1]


def test_a_system_may_say_much_before_it_makes_anything(monkeypatch: pytest.MonkeyPatch):
    child = "import sys; sys.stderr.write('warning ' * 40_000); print('{}')"
    monkeypatch.setattr(evaluating, "CHILD", child)
    assert list(evaluating._child("")) == [{}]
    monkeypatch.setattr(evaluating, "CHILD", f"{child}; sys.exit('\\nerror: no room')")
    with pytest.raises(RcodError, match="it said: no room"):
        list(evaluating._child(""))


def test_code_that_changes_is_another_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.py").write_text(name)
    monkeypatch.setattr(judge, "files", lambda package: tmp_path)
    found = [judge.code.__wrapped__(*names) for names in (("a",), ("b",), ("a", "b"), ("a",))]
    assert len({*found}) == 3 and found[0] == found[3]


def test_journal_goes_on_after_a_torn_line(tmp_path: Path):
    path = tmp_path / "work.jsonl"
    made = Made(dataset="s", label="l", picture="p", identity="i", sha256="0", seconds=1, peak_mb=1)
    append(path, made)
    path.write_bytes(path.read_bytes() + b'{"dataset": "s", "la')
    append(path, made)
    assert read_lines(path, Made) == [made, made]


def test_a_line_torn_within_a_letter_counts_as_unwritten(tmp_path: Path):
    row = Scored(protocol="p", sr="ü", hr="", values={})
    append(tmp_path / "work.jsonl", row)
    append(tmp_path / "work.jsonl", row)
    content = (tmp_path / "work.jsonl").read_bytes()
    (tmp_path / "work.jsonl").write_bytes(content[: content.rindex("ü".encode()) + 1])
    assert read_lines(tmp_path / "work.jsonl", Scored) == [row]
    append(tmp_path / "work.jsonl", row)
    assert read_lines(tmp_path / "work.jsonl", Scored) == [row, row]


def test_a_file_of_weights_may_lie_anywhere(tmp_path: Path):
    place = tmp_path / "a@b" / "lr=1"
    place.mkdir(parents=True)
    shutil.copy(find_weights("tiny"), place / "m.safetensors")
    for text, labels in (
        (f"{place}/m.safetensors", ("m",)), (f"X={place}/m.safetensors@0.3", ("X@0.3",)),
    ):  # fmt: skip
        assert parse(text).labels[0].startswith(labels[0])


@pytest.mark.parametrize("text", ["dir:true={}", "true=tiny"])
def test_no_system_is_called_as_the_true_picture_is(tmp_path: Path, text: str):
    with pytest.raises(RcodError, match="what reports call the true picture"):
        parse(text.format(tmp_path))


@needs_tiny
def test_one_name_stands_for_the_same_weights(dataset: Dataset, tmp_path: Path):
    weights, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    shutil.copy(find_weights("tiny"), weights)
    other.write_bytes(weights.read_bytes()[:-1] + b"x")
    one, same, others = (parse(f"X={file}@{level}") for file, level in
                         ((weights, "0.3"), (weights, "0.5"), (other, "0.5")))  # fmt: skip
    assert list(described([one, same])) == ["X"]
    with pytest.raises(RcodError, match="one name must have the same weights, and X names two"):
        run([dataset], [one, others], tmp_path / "out", Judge())
    assert not (tmp_path / "out").exists()
