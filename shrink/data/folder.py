"""Images in folders: one sub-folder per class, optionally below train/ and val/ (or test/)."""

from __future__ import annotations

from pathlib import Path

from shrink.data.images import Files, Images, Parts, from_source
from shrink.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")  # what the device runner decodes
TRAIN = ("train", "training")
EVALUATION = ("val", "valid", "validation", "test")  # the first that is there; a test part often has no labels


def read_folder(name: str, root: Path) -> Parts:
    """Classes are the sub-folders in sorted order; images straight in the folder have no labels."""
    folders = _folders(root)
    train = next((folders[part] for part in TRAIN if part in folders), None)
    evaluation = next((folders[part] for part in EVALUATION if part in folders), None)
    if evaluation is None or set(folders) - {*TRAIN, *EVALUATION}:  # "train" among others is a class
        train, evaluation = None, root
    parts = [part for part in (train, evaluation) if part is not None]
    classes = sorted({label for part in parts for label in _folders(part)})  # one numbering for both parts
    return Parts(
        train=None if train is None else _part(name, root, train, classes),
        evaluation=_part(name, root, evaluation, classes),
        notes=tuple(note for part in parts for note in _notes(part)),
    )


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _part(name: str, root: Path, folder: Path, classes: list[str]) -> Images:
    """The images of one part, sorted by path within each class."""
    if classes and _folders(folder):
        pairs = [(path, label) for label, one in enumerate(classes) for path in _images(folder / one, deep=True)]
    else:
        pairs = [(path, -1) for path in _images(folder, deep=False)]
    if not pairs:
        raise _no_images(folder)
    labels = [label for _, label in pairs]
    return from_source(
        name,
        Files(tuple(path for path, _ in pairs)),
        [path.relative_to(root).as_posix() for path, _ in pairs],
        labels=None if labels[0] < 0 else labels,
        classes=classes or None,
    )


def _files(folder: Path, *, deep: bool) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in found if path.is_file() and not path.name.startswith(".")) if folder.is_dir() else []


def _images(folder: Path, *, deep: bool) -> list[Path]:
    return [path for path in _files(folder, deep=deep) if path.suffix.lower() in SUFFIXES]


def _no_images(folder: Path) -> DataError:
    files = _files(folder, deep=True)
    if not files:
        return DataError(f"{folder} is empty", "it holds no files", "put images there, one sub-folder per class")
    why = f"it holds {len(files)} files, such as {files[0].name}, none of them {', '.join(SUFFIXES)}"
    return DataError(f"{folder} holds no images", why, "give the folder of images, or convert them to PNG or JPEG")


def _notes(folder: Path) -> list[str]:
    """What lies in the folder and was not taken."""
    files, classes = _files(folder, deep=True), _folders(folder)
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    loose = [path for path in _images(folder, deep=False) if classes]
    empty = [label for label, path in classes.items() if not _images(path, deep=True)]
    found = (
        (others, f"{len(others)} files in {folder} are not {', '.join(SUFFIXES)} and were passed over"),
        (loose, f"{len(loose)} images in {folder} are in no class folder and were passed over"),
        (empty, f"{len(empty)} class folders in {folder} have no images, such as {''.join(empty[:1])}"),
    )
    return [f"{text}: {things[0]}" if isinstance(things[0], Path) else text for things, text in found if things]
