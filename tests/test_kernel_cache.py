"""Compiled kernels: read where nothing can be written, compiled in memory where nothing is kept, shared by a fleet."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PHOTOS, ROOT

MODULE = "luma"
"""A kernel module that compiles in a second or two."""

REPORT = f"""
import json, sys
from ncii_match.kernels import jit
jit.compile_all = lambda: None          # this one module only
from ncii_match.kernels import {MODULE}
print(json.dumps({{"folder": jit.cache_folder(), "target": jit.compiled_for()}}))
"""

OTHER_USER = 65_534


def report(**variables):
    """Folder and target of one module's kernels in a fresh process, and what it said on standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    result = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**environment, "PYTHONPATH": str(ROOT), **variables},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(result.stdout), result.stderr


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.nb?")}


def test_code_for_a_baseline_is_loaded_by_every_processor_that_has_its_features(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert report(**cache, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[0]["target"] == ["generic"]
    compiled = files_in(tmp_path)
    assert compiled
    assert report(**cache)[0]["target"] == ["generic"]
    assert report(**cache, NUMBA_CPU_NAME="another")[0]["target"] == ["generic"]
    assert files_in(tmp_path) == compiled, "nothing was compiled again"


def test_code_for_this_very_processor_goes_first(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    report(**cache)
    report(**cache, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    own = report(**cache)[0]["target"]
    assert own != ["generic"]
    assert len(own) == 1


def test_a_damaged_cache_is_compiled_over(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    report(**cache)
    for path in files_in(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    assert report(**cache)[0]["folder"].startswith(str(tmp_path))


def test_nowhere_to_write_is_said_once_and_kernels_are_compiled_in_memory(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    seen, said = report(NUMBA_CACHE_DIR=str(blocked))
    assert seen["folder"].startswith("none")
    assert said.count("cannot be kept") == 1
    assert str(blocked) in said


def test_baselines_ask_for_features_and_the_plain_processor_for_none():
    from ncii_match.kernels import cache

    usable = cache.usable_baselines()
    assert usable[-1] == "generic"
    ordered = [name for name in cache.BASELINES if name in usable]
    assert usable == ordered
    sizes = [len(features) for features in cache.BASELINES.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_warmup_refuses_a_baseline_that_is_none():
    program = Path(sys.executable).parent / "ncii-match"
    result = subprocess.run(
        [program, "warmup", "--cpu", "x86-64-v9"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1
    assert "generic" in result.stderr


def in_read_only_image(image, *command, image_variables=()):
    """Run a command as another user, without HOME, with the package on a file system mounted read-only."""
    mounted = (
        f"mount --bind {image} {image} && mount -o remount,bind,ro {image} && cd / && "
        # May read what root may, such as an interpreter below /root; may write nothing that its own user may not.
        f"exec setpriv --reuid={OTHER_USER} --regid={OTHER_USER} --clear-groups --no-new-privs "
        "--inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search "
        'env -i PATH="$PATH" PYTHONPATH="$0" PYTHONDONTWRITEBYTECODE=1 "$@"'
    )
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, str(image), *image_variables, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The package with its kernels compiled into it, as a container image has it."""
    if os.geteuid() or not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip("mounting a file system read-only takes root and util-linux; .ci/run has both")
    folder = tmp_path_factory.mktemp("image")
    os.chmod(folder, 0o755)
    shutil.copytree(ROOT / "ncii_match", folder / "ncii_match", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", folder / "data")
    program = "from ncii_match.cli.main import run; import sys; sys.argv[0] = 'ncii-match'; run()"
    compiled = subprocess.run(
        [sys.executable, "-c", program, "warmup"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert compiled.returncode == 0, compiled.stderr
    return folder, program


@pytest.mark.parametrize(
    "arguments",
    [
        ("hash", PHOTOS / "coffee.png"),
        ("doctor",),
        ("bank", "--help"),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_commands_work_in_a_read_only_image_as_another_user(image, arguments):
    folder, program = image
    before = files_in(folder)
    result = in_read_only_image(folder, sys.executable, "-c", program, *arguments)
    assert result.returncode == 0, result.stderr
    assert "cannot be kept" not in result.stderr
    assert files_in(folder) == before


def test_a_picture_is_checked_in_a_read_only_image_as_another_user(image, tmp_path_factory):
    folder, program = image
    public = tmp_path_factory.mktemp("public")
    for part in (public, *public.parents):
        if part.stat().st_uid == os.geteuid() and part.is_relative_to("/tmp"):
            os.chmod(part, part.stat().st_mode | 0o055)
    home = public / "home"
    home.mkdir()
    os.chown(home, OTHER_USER, OTHER_USER)
    bank = home / "bank"
    for command, code in (
        (("bank", "create", bank), 0),
        (("bank", "add", bank, PHOTOS / "coffee.png", "--case", "R-17"), 0),
        (("scan", PHOTOS / "coffee.png", "--bank", bank), 4),
    ):
        result = in_read_only_image(folder, sys.executable, "-c", program, *command)
        assert result.returncode == code, result.stderr
