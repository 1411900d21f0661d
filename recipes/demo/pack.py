"""Pack a calibration and an evaluation set of Fashion-MNIST into one small file that ships with shrink.

Example: python recipes/demo/pack.py --out shrink/data/fashion_mnist.npz
"""

import io
import zipfile
from pathlib import Path
from typing import Annotated

import fashion
import numpy as np
import typer
from numpy.typing import NDArray

CALIBRATION_PER_CLASS = 100  # of the training split
EVALUATION_PER_CLASS = 583  # of the test split; as many as keep the file under LIMIT_BYTES
LIMIT_BYTES = 3_000_000
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip entry can carry; fixed so that the bytes repeat


def choose_balanced(labels: fashion.Labels, per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose images at random, equally many of each class.

    Args:
        labels: (N,), 0..9.
        per_class: how many of each; every class must have that many.

    Returns:
        indices (10 * per_class,), classes taking turns: any first 10 * k of them are balanced as well.
    """
    columns = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(len(fashion.CLASSES))]
    return np.stack(columns, axis=1).reshape(-1)


def build(directory: Path, *, seed: int) -> dict[str, NDArray[np.uint8] | NDArray[np.str_]]:
    """Arrays of the file: images (N, 28, 28) uint8, labels (N,) uint8, class names (10,)."""
    rng = np.random.default_rng(seed)
    train_images, train_labels = fashion.load(directory, "train")
    test_images, test_labels = fashion.load(directory, "test")
    calibration = choose_balanced(train_labels, CALIBRATION_PER_CLASS, rng)
    evaluation = choose_balanced(test_labels, EVALUATION_PER_CLASS, rng)
    return {
        "calib_images": train_images[calibration],
        "calib_labels": train_labels[calibration],
        "eval_images": test_images[evaluation],
        "eval_labels": test_labels[evaluation],
        "classes": np.array(fashion.CLASSES),
    }


def to_npz(arrays: dict[str, NDArray[np.uint8] | NDArray[np.str_]]) -> bytes:
    """An .npz whose bytes depend on the arrays alone; `np.savez_compressed` may store the time of writing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED  # lzma would save 14 %, but not every Python is built with it
            entry.create_system = 3  # Unix; otherwise the system that runs this
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    return buffer.getvalue()


def main(
    out: Annotated[Path, typer.Option(help="The .npz file to write.", dir_okay=False)],
    data: Annotated[Path, typer.Option(help="Directory of the four IDX .gz files.")] = fashion.DEBIAN_DIR,
    seed: Annotated[int, typer.Option(help="Of the choice of images.")] = 0,
) -> None:
    """Write OUT: calibration images of the training split and evaluation images of the test split."""
    try:
        arrays = build(data, seed=seed)
    except fashion.DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    content = to_npz(arrays)
    if len(content) > LIMIT_BYTES:
        typer.echo(
            f"error: the file would be {len(content)} bytes\n"
            f"  why: it ships with the package and may have {LIMIT_BYTES}\n"
            "  fix: lower EVALUATION_PER_CLASS in recipes/demo/pack.py",
            err=True,
        )
        raise typer.Exit(1)
    part = out.with_name(out.name + ".part")
    part.write_bytes(content)
    part.replace(out)
    shapes = "  ".join(f"{name} {array.shape}" for name, array in arrays.items())
    typer.echo(f"{out}: {len(content)} bytes  {shapes}")


if __name__ == "__main__":
    typer.run(main)
