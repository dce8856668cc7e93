"""A small experiment over real photographs, made once for the tests that look into it."""

from pathlib import Path

import numpy as np
from conftest import ROOT
from PIL import Image

from ncii_match.evaluate.experiment import Experiment
from ncii_match.evaluate.transforms import Step
from ncii_match.evaluate.trials import TrialSettings
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.values import PDQ, PHASH, Views

STEPS = (
    Step("jpeg", 40),
    Step("mirror", 1),
    Step("white border", 5),
    Step("crop centre", 5),
    Step("noise", 5),
)

CROPS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Quarters of a photograph: four pictures of one group."""


def write_pictures(folder: Path) -> Path:
    """Quarters of six photographs, a flat one, a tiny one and one that is no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = ("astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "rocket.jpg")
    for name in photos:
        image = Image.open(ROOT / "data" / "fixtures" / "photos" / name).convert("RGB")
        image.thumbnail((400, 400))
        width, height = image.width // 2, image.height // 2
        for x, y in CROPS:
            quarter = image.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
            quarter.save(folder / f"{name.partition('.')[0]}@{x}{y}.png")
    Image.fromarray(np.full((90, 120), 200, np.uint8)).save(folder / "plain@00.png")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "tiny@00.png")
    (folder / "broken@00.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    return folder


GROUPS = "^[^@]*"

PLAN = TrialSettings(STEPS, PDQ, Views.ALL, seed=7, witness=PHASH)


def make(folder: Path, out: Path, chunk: int = 5, **changed) -> Experiment:
    """The experiment, finished."""
    settings = {"settings": PLAN, "groups": GROUPS, "workers": 2, **changed}
    experiment = Experiment(out, Chunks(find_rows(folder), chunk), **settings)
    experiment.run()
    return experiment
