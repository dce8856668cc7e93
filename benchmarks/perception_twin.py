"""Thorn's perception measures a folder of pictures with its own code, to compare the preset "perception" with.

It needs an environment of its own, because it brings another OpenCV. With Python 3.11 or later:

python -m venv /tmp/venv-perception && . /tmp/venv-perception/bin/activate
pip install 'perception[benchmarking,pdq]==0.9.3' scikit-image imageio shapely six
pip install --no-deps imgaug==0.4.0
pip uninstall --yes opencv-python-headless
pip install --force-reinstall --no-deps 'opencv-contrib-python-headless<5'
python benchmarks/perception_twin.py FOLDER --out twin.json

Writes what each alteration comes to (``recall``), and every picture's distances (``pictures``). With --vectors FILE it
writes what tests/test_transforms.py compares: its alterations of one photograph.
"""

import argparse
import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

# imgaug 0.4.0 was made for numpy 1; this table is all that it misses.
np.sctypes = {  # noqa: NPY201 - the name is put back, not used
    "int": [np.int8, np.int16, np.int32, np.int64],
    "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
    "float": [np.float16, np.float32, np.float64],
}

import imgaug  # noqa: E402
from imgaug import augmenters  # noqa: E402
from perception import benchmarking, hashers  # noqa: E402
from perception.hashers.image.pdq import PDQHash  # noqa: E402

SEED = 1
PHOTO = Path(__file__).parents[1] / "data" / "fixtures" / "photos" / "coffee.png"
BLOCKS = (8, 6)
"""Columns and rows of the means that are kept of an altered picture."""


def watermark(image):
    """As perception's page has it: docs/examples/benchmarking.rst, Apache License 2.0."""
    font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, 5, 5
    (width, height), _ = cv2.getTextSize(text="TEST", fontFace=font, fontScale=scale, thickness=thickness)
    correction = 0.2 * image.shape[1] / width
    height *= correction
    placeholder = cv2.putText(
        img=np.zeros((*image.shape[:2], 4), dtype="uint8"),
        text="TEST",
        org=(int(height), int(image.shape[0] - height)),
        color=(0, 0, 0, 200),
        fontFace=font,
        fontScale=scale * correction,
        thickness=thickness,
    ).astype("float32")
    scaled = image.astype("float32")[..., :3] * (255 - placeholder[..., 3:])
    return ((scaled + placeholder[..., :3] * placeholder[..., 3:]) / 255).astype("uint8")


def vignette(image):
    """As perception's page has it."""
    height, width = image.shape[:2]
    light = (cv2.getGaussianKernel(width, width / 2).T * cv2.getGaussianKernel(height, height / 2))[..., np.newaxis]
    return (image * (light / light.max())).astype("uint8")


TRANSFORMS = {
    "watermark": watermark,
    "blur2": augmenters.GaussianBlur(sigma=2.0),
    "vignette": vignette,
    "gamma2": augmenters.GammaContrast(gamma=2),
    "jpeg95": augmenters.JpegCompression(95),
    "pad0.2": augmenters.Pad(percent=((0.2, 0.2), (0, 0), (0.2, 0.2), (0, 0)), keep_size=False),
    "crop0.05": augmenters.Crop(percent=((0.05, 0.05), (0.05, 0.05), (0.05, 0.05), (0.05, 0.05)), keep_size=False),
    "noise0.2": augmenters.AdditiveGaussianNoise(scale=0.2 * 255),
    "rotate4": augmenters.Affine(rotate=4),
    "noop": augmenters.Resize({"longer-side": 256, "shorter-side": "keep-aspect-ratio"}),
}


def versions():
    names = ("perception", "imgaug", "numpy", "opencv-contrib-python-headless", "pdqhash", "pandas", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def measured(folder, precision, transforms):
    files = [(str(path), "pictures") for path in sorted(Path(folder).iterdir())]
    with tempfile.TemporaryDirectory(prefix="perception-") as work:
        transformed = benchmarking.BenchmarkImageDataset.from_tuples(files).transform(transforms, work, errors="raise")
        hashes = transformed.compute_hashes({"pdq": PDQHash(), "phash": hashers.PHash()}, max_workers=1)
        recall = hashes.compute_threshold_recall(precision_threshold=precision, grouping=["transform_name"])
        rows = hashes.compute_metrics()
        noop = hashes.filter(transform_name=["noop"], hasher_name=["pdq"])._df  # noqa: SLF001 - there is no other way
    names = dict(zip(noop.guid, noop.input_filepath.map(lambda path: Path(path).name), strict=True))
    bits = {"pdq": 256, "phash": 64}
    table = recall.reset_index()
    table["threshold"] = [
        round(threshold * bits[name], 3) for threshold, name in zip(table.threshold, table.hasher_name, strict=True)
    ]
    pictures = [
        {
            "picture": names[row.guid],
            "transform": row.transform_name,
            "hasher": row.hasher_name,
            "same": round(row.distance_to_closest_correct_image * bits[row.hasher_name]),
            "different": round(row.distance_to_closest_incorrect_image * bits[row.hasher_name]),
        }
        for row in rows.itertuples()
    ]
    # They come in a random order.
    pictures.sort(key=lambda row: (row["hasher"], row["transform"], row["picture"]))
    return json.loads(table.to_json(orient="records")), pictures


def vectors():
    """Means of blocks of the photograph after each alteration, in levels of 255, and its size: before it is saved."""
    pixels = cv2.cvtColor(cv2.imread(str(PHOTO)), cv2.COLOR_BGR2RGB)
    noop = TRANSFORMS["noop"](image=pixels)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(noop, cv2.COLOR_RGB2BGR))
    first = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    altered = {"noop": first}
    altered |= {name: alter(image=first) for name, alter in TRANSFORMS.items() if name not in ("noop", "noise0.2")}
    return {
        name: {
            "size": list(picture.shape[:2]),
            "means": cv2.resize(picture.astype(np.float32), BLOCKS, interpolation=cv2.INTER_AREA)
            .astype(float)
            .round(1)
            .tolist(),
        }
        for name, picture in altered.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="of pictures that are all different")
    parser.add_argument("--out", default="twin.json")
    parser.add_argument("--precision", type=float, default=99.99)
    parser.add_argument(
        "--only", action="append", choices=[*TRANSFORMS], help="this alteration, and noop; again for more"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="decides the noise")
    parser.add_argument("--vectors", help="write the golden vectors there instead")
    options = parser.parse_args()
    imgaug.seed(options.seed)
    if options.vectors:
        about = {"made_by": "python benchmarks/perception_twin.py --vectors FILE", "photo": PHOTO.name, **versions()}
        Path(options.vectors).write_text(json.dumps({**about, "altered": vectors()}) + "\n")
        return
    transforms = {
        name: alter for name, alter in TRANSFORMS.items() if name == "noop" or name in (options.only or TRANSFORMS)
    }
    recall, pictures = measured(options.folder, options.precision, transforms)
    figures = {"versions": versions(), "precision": options.precision, "recall": recall, "pictures": pictures}
    Path(options.out).write_text(json.dumps(figures, indent=1) + "\n")
    for row in recall:
        print(
            f"{row['hasher_name']:6} {row['transform_name']:10} "
            f"recall {row['recall']:7.3f} % at {row['threshold']:g} bits"
        )


if __name__ == "__main__":
    main()
