"""What thresholds find of altered copies, and what they take for found, on public photographs; and how long that takes.

python benchmarks/bench_thresholds.py [--quick] [--perception PYTHON] [--keep FOLDER]
pytest benchmarks --benchmark-disable       does it all on a few small pictures; never asserts a time

The pictures are those of ``corpus.py``: none is a fixture. ``--perception`` names the Python of an environment in which
``perception_twin.py`` runs (it says how to make one); the same pictures then go through perception's own code as well.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import bench_corpus
import corpus
import cv2
import numpy as np
import perception_recall
import record
from numpy.typing import NDArray

from ncii_match.evaluate import findings
from ncii_match.evaluate.experiment import PICTURES_A_CHUNK, Experiment
from ncii_match.evaluate.transforms import PRESETS, REFERENCES, Step, preset
from ncii_match.evaluate.trials import TrialSettings
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD, PHASH, Views

WORKERS = 2
GROUPS = "^(.*?)--"
FLAT_CROPS = 300
"""Of the crops that are sky and the like; as many as there are drawn pictures of a kind."""

SEEDS = range(1, 21)
"""Of the noise, for perception's own code and for ours: what one draw of it shows differs from the next by points."""

Row = dict[str, Any]


def pictures(folder: Path, *, quick: bool) -> None:
    """Write crops of photographs, some flat ones, and drawn pictures."""
    crops = corpus.corpus()
    flat = [crop for crop in crops if crop.stratum == "flat"]
    banked = [crop for crop in crops if crop.stratum != "flat"] + flat[:: max(1, len(flat) // FLAT_CROPS)][:FLAT_CROPS]
    banked += corpus.drawn()
    corpus.write(folder, banked[::20] if quick else banked)


def experiment(
    folder: Path, out: Path, steps: tuple[Step, ...], *, reference: Step | None = None, seed: int = 0
) -> Row:
    """Alter and hash everything; the time it took. With a reference as perception does: upright, in colour."""
    cv2.setNumThreads(1)  # the threads here are over pictures
    plan = TrialSettings(
        steps, PDQ, Views.UPRIGHT if reference else PDQ.default_views, reference=reference,
        witness=None if reference else PHASH, seed=seed,
    )  # fmt: skip
    experiment = Experiment(out, Chunks(find_rows(folder), PICTURES_A_CHUNK), plan, workers=WORKERS, groups=GROUPS)
    begun = perf_counter()
    experiment.run()
    return {
        "figure": "altering", "pictures": experiment.rows, "steps": len(steps), "workers": WORKERS,
        "seconds": perf_counter() - begun,
    }  # fmt: skip


def measure(folder: Path, work: Path, perception: str | None, steps: Sequence[Step] | None = None) -> dict[str, Any]:
    """Every figure."""
    took = experiment(folder, work / "default", tuple(steps) if steps else preset("default"))
    question = findings.Question(PDQ_THRESHOLD, PDQ_MIN_QUALITY)
    begun = perf_counter()
    figures = findings.compute_findings(work / "default", question, workers=WORKERS)
    seconds = perf_counter() - begun
    photographs = work / "photographs"
    photographs.mkdir()
    for path in sorted(folder.iterdir()):
        if "_photograph." in path.name:
            (photographs / path.name).hardlink_to(path)
    protocol = PRESETS["perception"]
    experiment(photographs, work / "perception", protocol, reference=REFERENCES["perception"])
    ours = perception_recall.recall_of(work / "perception")
    theirs = None if perception is None else twin(perception, photographs, work, SEEDS[0])
    if theirs is not None:
        del theirs["pictures"]  # of which there are many
    del figures["experiment"]["input"]  # times of files: another each time
    return {
        "took": took,
        "finding_seconds": seconds,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "findings": figures,
        "perception": {"ours": ours, "theirs": theirs},
    }


def noise(folder: Path, work: Path, perception: str | None, seeds: Sequence[int]) -> Iterator[Row]:
    """The one alteration that is left to chance, drawn anew for each seed, by us and by perception's own code.

    Recall as perception computes it, and percent of the copies within the bits that it publishes for it.
    """
    name, bits = perception_recall.NOISE, perception_recall.PUBLISHED[perception_recall.NOISE][1]
    steps = tuple(step for step in PRESETS["perception"] if step.label.endswith((": noop", f": {name}")))
    for seed in seeds:
        out = work / f"noise-{seed}"
        experiment(folder, out, steps, reference=REFERENCES["perception"], seed=seed)
        (own,) = (own for label, (own, _) in perception_recall.distances_of(out) if label.endswith(name))
        (ours,) = (row["recall"] for row in perception_recall.recall_of(out) if row["step"].endswith(name))
        row = {"seed": seed, "copies": len(own), "bits": bits, "ours": ours, "ours_within": _percent(own <= bits)}
        if perception is not None:
            peer = twin(perception, folder, work, seed, only=name)
            theirs = (row for row in peer["recall"] if (row["hasher_name"], row["transform_name"]) == ("pdq", name))
            apart = [row["same"] for row in peer["pictures"] if (row["hasher"], row["transform"]) == ("pdq", name)]
            row |= {"theirs": next(theirs)["recall"], "theirs_within": _percent(np.array(apart) <= bits)}
        yield row


def _percent(within: NDArray[np.bool_]) -> float:
    return round(100 * float(within.mean()), 3)


def twin(python: str, folder: Path, work: Path, seed: int, *, only: str | None = None) -> Row:
    """What perception's own code makes of the same pictures, with other random noise for another seed.

    What was kept of the same is not made again.
    """
    script, out = Path(__file__).parent / "perception_twin.py", work / f"twin-{seed}-{only or 'all'}.json"
    if not out.exists():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        only_steps = [] if only is None else ["--only", only]
        subprocess.run([python, script, folder, "--out", out, "--seed", str(seed), *only_steps], check=True, **quiet)
    peer: Row = json.loads(out.read_text())
    return {"seed": seed, **{name: peer[name] for name in ("versions", "recall", "pictures")}}


def test_thresholds_are_evaluated(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    corpus.write(folder, corpus.drawn(2))
    for k, path in enumerate(sorted(folder.iterdir())[:6]):
        path.rename(path.with_name(path.name.replace("text-like", "photograph").replace("--", f"{k}--")))
    measured = measure(folder, tmp_path, None, PRESETS["default"][:3])
    assert measured["findings"]["sets"]["all"]["recall"]["pairs"] == measured["took"]["pictures"] * 3
    assert {row["step"] for row in measured["perception"]["ours"]} == {
        "all",
        *(step.label for step in PRESETS["perception"]),
    }
    drawn = [*noise(tmp_path / "photographs", tmp_path, None, SEEDS[:2])]
    assert [row["seed"] for row in drawn] == [1, 2]
    pictures_there = len([*(tmp_path / "photographs").iterdir()])
    assert [row["copies"] for row in drawn] == [pictures_there] * 2
    assert all(0 <= row[name] <= 100 for row in drawn for name in ("ours", "ours_within"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the pictures")
    parser.add_argument("--perception", metavar="PYTHON", help="of an environment in which perception_twin.py runs")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where pictures and distances stay")
    parser.add_argument("--noise", action="store_true", help="only the noise, of the pictures that were kept")
    options = parser.parse_args()
    around = record.circumstances()
    with tempfile.TemporaryDirectory(prefix="thresholds-") as temporary:
        work = options.keep or Path(temporary)
        if options.noise != (work / "photographs").exists():
            parser.error("--noise takes --keep of a run before; without it --keep is a new folder")
        if not options.noise:
            work.mkdir(exist_ok=True)
            bench_corpus.check_whole()  # pictures that are the same would be called false matches
            pictures(work / "pictures", quick=options.quick)
            measured = measure(work / "pictures", work, options.perception)
            show(record.write("thresholds", around, options.quick, measured), measured)
        rows = list(noise(work / "photographs", work, options.perception, SEEDS[:2] if options.quick else SEEDS))
        print(f"wrote {record.write('noise', around, options.quick, {'rows': rows})}")


def show(path: Path, measured: dict[str, Any]) -> None:
    """The main figures."""
    took = measured["took"]
    print(f"{took['pictures']:,} pictures in {took['steps']} steps: {took['seconds']:.0f} s")
    print(f"figures: {measured['finding_seconds']:.0f} s")
    for name, views in measured["findings"]["sets"].items():
        false = views["false"]
        print(f"{name}: {views['recall']['recall']:.1%} found, {false['false_pairs']} of {false['pairs']:,} false")
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
