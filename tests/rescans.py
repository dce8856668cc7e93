"""Small pictures, banks and jobs for the tests of rescans."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from conftest import PHOTOS
from PIL import Image, ImageOps

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.jobs.job import Job
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.matcher import Matcher
from ncii_match.rescans.plan import RescanPlan
from ncii_match.values import PDQ, Hashes, Views


@cache
def picture(seed, side=64):
    """The bytes of a small picture like no other."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    image = Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@cache
def mirrored(seed):
    """The same picture, from the other side."""
    file = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(picture(seed)))).save(file, "PNG")
    return file.getvalue()


def bank_of(path, seeds=(1, 2), case="R-1", source="own"):
    """A published bank that has these pictures."""
    with Bank.create(path) as bank:
        bank.add(nm.hash_images([picture(seed) for seed in seeds]), case=case, source=source)
        bank.publish()
    return path


def add(path, seeds, case):
    with Bank.open(path) as bank:
        bank.add(nm.hash_images([picture(seed) for seed in seeds]), case=case, source="own")
        bank.publish()


def withdraw(path, case):
    with Bank.open(path) as bank:
        bank.withdraw(case=case, reason="asked")
        bank.publish()


def matcher_of(bank, **options):
    return Matcher(bank, **{"isolation": "thread", "workers": 2, "views": Views.UPRIGHT, **options})


def folder_of(path, contents):
    """Files by their names."""
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def pictures_in(path, n, first=0, **more):
    return folder_of(path, {f"{seed:05}.png": picture(seed) for seed in range(first, first + n)} | more)


def job_of(out, source, matcher, chunk=4, *, restart=False, **options):
    return Job(out, RescanPlan(Chunks(find_rows(source), chunk), matcher, workers=2, **options), restart=restart)


def run(out, source, place, chunk=4, *, matching=None, **options):
    """A whole job against the bank in a place; its summary."""
    with matcher_of(place, **(matching or {})) as matcher, job_of(out, source, matcher, chunk, **options) as job:
        return job.run()


VARIES = ("log.ndjson", "lock", "report.html")
"""When things were done, or made from it."""


def results(out):
    """What a finished job has: name to bytes, without what may differ."""
    kept = [path for path in Path(out).rglob("*") if path.is_file() and path.name not in VARIES]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


COFFEE = PHOTOS / "coffee.png"
