"""Folders of a person's own: what does not fit is named in one line, before anything is written."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from src.data.samples import load_tensors
from src.experiments import TASKS, Paths, Task
from tests.tools import Result, call, call_well, tree

GREY = Task(
    "own",
    (3,),
    3,
    repository="me/own",
    classes=(0, 1),
    n_classes=10,
    input_shape=(1, 28, 28),
    hyperparameters={"epochs": 5},
)
COLOUR = replace(GREY, input_shape=(3, 28, 28))
N = 3  # images a class, all of which are drawn


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with class folders of grey images, train/0/0.png to test/1/2.png."""
    folder = tmp_path / "source"
    write_class_folders(folder, ["0", "1"])
    return folder


@pytest.fixture(autouse=True)
def own_task(monkeypatch: pytest.MonkeyPatch) -> Callable[[Task], None]:
    """Registers the task of one's own, or another one of its name."""
    monkeypatch.setitem(TASKS, "own", GREY)
    return lambda task: monkeypatch.setitem(TASKS, "own", task)


def write_class_folders(source: Path, names: list[str], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in names:
            folder = source / GREY.repository / split / name
            folder.mkdir(parents=True)
            for i in range(N):
                pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


def image_file(source: Path) -> Path:
    """Return the last training image, whose index is 5."""
    return source / GREY.repository / "train" / "1" / "2.png"


def generate(source: Path, *options: object) -> Result:
    root = ("--root", source.parent / "root")
    return call("run_subset_generation", *root, "--task", "own", "--source", source, *options)


def generate_well(source: Path, *options: object) -> dict[str, dict]:
    """Return the tensors by split."""
    result = generate(source, *options)
    assert (result.code, result.err) == (0, ""), result
    paths = Paths(source.parent / "root")
    return {
        split: torch.load(paths.tensors("own", split), weights_only=True)
        for split in ("train_3pc", "test")
    }


def check_refused(source: Path, *says: str) -> None:
    """Assert that generation says so in one line and writes nothing."""
    generate(source).check_refused(*says)
    assert not (source.parent / "root").exists()


def drawn(tensors: dict, index: int) -> torch.Tensor:
    """Return the image of an index, (C, H, W)."""
    return tensors["images"][tensors["indices"].tolist().index(index)]


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def png_of_16_bits(channels: int) -> bytes:
    """Return a PNG, which Pillow cannot write, of 28x28 pixels of 16 bits a channel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + pixels(28 * channels * 2).tobytes() for _ in range(28))
    header = struct.pack(">IIBBBBB", 28, 28, 16, colour_type, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette(path: Path) -> None:
    Image.fromarray(pixels(28, 28, 3)).quantize(16).save(path)


def half_transparent(path: Path) -> None:
    Image.fromarray(pixels(28, 28, 4)).save(path)


def transparent_colour(path: Path) -> None:
    image = Image.fromarray(np.full((28, 28), 7, np.uint8))
    image.save(path, transparency=7)


def animated(path: Path) -> None:
    frames = [Image.fromarray(pixels(28, 28)), Image.fromarray(255 - pixels(28, 28))]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def truncated(path: Path) -> None:
    Image.fromarray(pixels(28, 28)).save(path)
    path.write_bytes(path.read_bytes()[:400])


def saved(image: Callable[[], Image.Image], form: str = "PNG") -> Callable[[Path], None]:
    return lambda path: image().save(path, format=form)


def ppm_of_16_bits(path: Path) -> None:
    path.write_bytes(b"P6 28 28 65535\n" + pixels(28 * 28 * 6).tobytes())


UNFIT = {
    "16-bit grey": (lambda path: path.write_bytes(png_of_16_bits(1)), "has more than 8 bits"),
    "16-bit grey, alpha": (
        lambda path: path.write_bytes(png_of_16_bits(2)),
        "has more than 8 bits",
    ),
    "float TIFF": (
        saved(lambda: Image.fromarray(pixels(28, 28).astype(np.float32)), "TIFF"),
        "has more than 8 bits a channel (mode F)",
    ),
    "32-bit TIFF": (
        saved(lambda: Image.fromarray(pixels(28, 28).astype(np.int32)), "TIFF"),
        "has more than 8 bits a channel (mode I",
    ),
    "CMYK": (saved(lambda: Image.new("CMYK", (28, 28)), "TIFF"), "is in mode CMYK"),
    "palette of colours": (palette, "is in colour (mode P)"),
    "colour": (saved(lambda: Image.fromarray(pixels(28, 28, 3))), "is in colour (mode RGB)"),
    "half transparent": (half_transparent, "has transparent pixels (mode RGBA)"),
    "a transparent colour": (transparent_colour, "has transparent pixels (mode L)"),
    "two frames": (animated, "has 2 frames"),
    "14 by 56": (saved(lambda: Image.fromarray(pixels(56, 14))), "is 14x56 pixels"),
    "56 by 14": (saved(lambda: Image.fromarray(pixels(14, 56))), "is 56x14 pixels"),
    "56 by 56": (saved(lambda: Image.fromarray(pixels(56, 56))), "is 56x56 pixels"),
    "truncated": (truncated, "cannot be read (image file is truncated"),
    "no image": (lambda path: path.write_bytes(b"no image"), "cannot be read (cannot identify"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read (cannot identify"),
}


@pytest.mark.parametrize(("write", "says"), UNFIT.values(), ids=UNFIT)
def test_the_first_image_that_does_not_fit_is_named(
    source: Path, write: Callable[[Path], object], says: str
):
    write(image_file(source))
    where = f"split train: image 5 ({image_file(source)}) {says}"
    check_refused(source, where, "own takes 28x28 pixels, 8-bit grey")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(png_of_16_bits(3)),
        lambda path: path.write_bytes(png_of_16_bits(4)),
        ppm_of_16_bits,
    ],
    ids=["RGB", "RGBA", "PPM"],
)
def test_colour_of_16_bits(source: Path, own_task: Callable, write: Callable[[Path], object]):
    """Pillow opens it as 8 bits."""
    own_task(COLOUR)
    write(image_file(source))
    check_refused(source, "image 5", "more than 8 bits", "takes 28x28 pixels, 8-bit colour")


def test_every_image_of_another_size(source: Path):
    shutil.rmtree(source)
    for split in ("train", "test"):
        for i in range(2 * N):
            folder = source / GREY.repository / split / str(i % 2)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(56, 56)).save(folder / f"{i}.png")
    check_refused(source, "is 56x56 pixels; own takes 28x28")


GREY_PIXELS = pixels(28, 28)
LOSSLESS = {
    "equal channels": (lambda: Image.fromarray(np.stack([GREY_PIXELS] * 3, -1)), GREY_PIXELS),
    "opaque": (
        lambda: Image.fromarray(np.dstack([*[GREY_PIXELS] * 3, np.full((28, 28), 255, np.uint8)])),
        GREY_PIXELS,
    ),
    "a palette of grey": (lambda: Image.fromarray(GREY_PIXELS).convert("P"), GREY_PIXELS),
    "one bit": (lambda: Image.fromarray(GREY_PIXELS > 99), 255 * (GREY_PIXELS > 99)),
}


@pytest.mark.parametrize(("image", "expected"), LOSSLESS.values(), ids=LOSSLESS)
@pytest.mark.parametrize("task", [GREY, COLOUR], ids=["grey", "colour"])
def test_what_loses_nothing_is_done(
    source: Path, own_task: Callable, task: Task, image: Callable, expected: np.ndarray
):
    own_task(task)
    image().save(image_file(source))
    found = drawn(generate_well(source)["train_3pc"], 5)
    assert found.shape == task.input_shape
    assert torch.equal(found, torch.from_numpy(expected.astype(np.uint8)).expand(task.input_shape))


# --- labels and class names ----------------------------------------------------------------------


def write_columns(source: Path, features: dict | None = None, **columns: list) -> None:
    """Write a data set of six images a split in parquet, with other columns beside them."""
    folder = source / GREY.repository
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = [Image.fromarray(pixels(28, 28)) for _ in range(2 * N)]
    columns = {"image": images, **columns}
    kinds = datasets.Features({"image": datasets.Image(), **(features or {})})
    data = datasets.Dataset.from_dict(columns, features=kinds)
    for split in ("train", "test"):
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")


LABELS = [0, 1] * N
AB = datasets.ClassLabel(names=["a", "b"])
WRONG_COLUMNS = {
    "strings": (
        {"label": datasets.Value("string")},
        {"label": list("ab" * N)},
        "the column 'label' must hold class labels or whole numbers: image (Image), label (string)",
    ),
    "floats": (
        {"label": datasets.Value("float64")},
        {"label": [0.0, 1.0] * N},
        "label (float64)",
    ),
    "truth values": (
        {"label": datasets.Value("bool")},
        {"label": [True, False] * N},
        "label (bool)",
    ),
    "one-hot": (
        {"label": datasets.List(datasets.Value("int64"))},
        {"label": [[0, 1], [1, 0]] * N},
        "label (List)",
    ),
    "none": ({}, {}, "or the task names one in label_column: image (Image)"),
    "another name": (
        {"digit": datasets.Value("int64")},
        {"digit": LABELS},
        "or the task names one in label_column: image (Image), digit (int64)",
    ),
    "two of class labels": ({"fine": AB, "coarse": AB}, {"fine": LABELS, "coarse": LABELS}, "fine"),
    "missing": (
        {"label": datasets.Value("int64")},
        {"label": [0, 1, 0, None, 0, 1]},
        "sample 3 has no label in 'label'",
    ),
    "missing of a class": ({"label": AB}, {"label": [0, 1, 0, 1, None, 1]}, "sample 4 has no"),
    "unlabelled": (
        {"label": datasets.Value("int32")},
        {"label": [0, 1, -1, 1, 0, 1]},
        "sample 2 has the label -1",
    ),
    "two images": (
        {"label": AB, "mask": datasets.Image()},
        {"label": LABELS, "mask": [Image.new("L", (28, 28))] * 2 * N},
        "it must have one column of images, and has 2",
    ),
    "a missing image": (
        {"label": AB},
        {"label": LABELS, "image": [None, *[Image.new("L", (28, 28))] * (2 * N - 1)]},
        "image 0 is missing; own takes",
    ),
}


@pytest.mark.parametrize(("features", "columns", "says"), WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_columns_that_do_not_fit(source: Path, features: dict, columns: dict, says: str):
    write_columns(source, features, **columns)
    check_refused(source, str(source / GREY.repository), says)


def test_no_images(source: Path):
    folder = source / GREY.repository
    shutil.rmtree(folder)
    folder.mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"label": LABELS}).to_parquet(folder / f"{split}.parquet")
    check_refused(source, "one column of images, and has 0: label (int64)")


@pytest.mark.parametrize("kind", [AB, datasets.Value("uint8")], ids=["classes", "numbers"])
def test_labels(source: Path, kind: object):
    write_columns(source, {"label": kind}, label=LABELS)
    tensors = generate_well(source)["test"]
    assert tensors["labels"].tolist() == [LABELS[i] for i in tensors["indices"]]


def test_the_only_column_of_class_labels_may_have_any_name(source: Path):
    write_columns(source, {"digit": AB, "size": datasets.Value("int64")}, digit=LABELS, size=LABELS)
    assert "(0 a: 3, 1 b: 3)" in generate(source).out


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([str(i) for i in range(11)], "label 2 is the class '10'"),
        (["1", "2", "3"], "label 0 is the class '1'"),
        ([f"class {i}" for i in range(11)], "label 2 is the class 'class 10'"),
    ],
)
def test_class_folders_that_are_sorted_as_text(source: Path, names: list[str], says: str):
    shutil.rmtree(source)
    write_class_folders(source, names)
    check_refused(source, says, "leading zeros", "class_names")


@pytest.mark.parametrize("names", [[f"{i:02}" for i in range(11)], ["cat", "dog"], ["c1", "c2"]])
def test_class_names_are_shown(source: Path, names: list[str]):
    shutil.rmtree(source)
    write_class_folders(source, names)
    assert f"(0 {names[0]}: 3, 1 {names[1]}: 3)" in generate(source).out


def test_class_names_are_those_of_the_task(source: Path, own_task: Callable):
    shutil.rmtree(source)
    write_class_folders(source, ["cat", "dog"])
    own_task(replace(GREY, class_names=("dog", "cat")))
    check_refused(source, "label 0 is 'cat', and own calls it 'dog'")
    own_task(replace(GREY, class_names=("cat", "dog")))
    generate_well(source)
    own_task(replace(GREY, classes=(0, 2), class_names=("cat", "dog", "eel")))
    generate(source).check_refused("label 2 is 'no class', and own calls it 'eel'")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_per_class": (4,)}, "own train_4pc: class 0 has 3 samples, fewer than the 4"),
        ({"n_test_per_class": 4}, "own test: class 0 has 3 samples, fewer than the 4"),
        ({"classes": (0, 2)}, "own test: class 2 has 0 samples, fewer than the 3"),
        ({"one_pool": True}, "class 0 has 0 samples that the test set leaves, fewer than the 3"),
    ],
)
def test_too_few_samples(source: Path, own_task: Callable, changes: dict, says: str):
    own_task(replace(GREY, **changes))
    check_refused(source, says)


def test_one_pool_is_the_training_split(source: Path, own_task: Callable):
    shutil.rmtree(source / GREY.repository / "test")
    check_refused(source, "has no split 'test'; it has train")
    own_task(replace(GREY, one_pool=True, n_per_class=(1,), n_test_per_class=2))
    call_well(
        *("run_subset_generation", "--task", "own", "--source", source),
        *("--root", source.parent / "root"),
    )
    paths = Paths(source.parent / "root")
    sets = [
        {*torch.load(paths.tensors("own", split))["indices"].tolist()}
        for split in ("train_1pc", "test")
    ]
    assert sets[0].isdisjoint(sets[1])
    assert sets[0] | sets[1] == set(range(6))


def test_no_task_is_written_where_another_does_not_fit(source: Path):
    image_file(source).write_bytes(b"")
    root = source.parent / "root"
    result = call(
        "run_subset_generation",
        *("--root", root, "--task", "digits3", "own", "--source", source),
    )
    result.check_refused("image 5")
    assert not root.exists()


# --- what is there already -----------------------------------------------------------------------


def test_another_source_for_the_same_indices(source: Path):
    before = generate_well(source)
    root = source.parent / "root"
    files = tree(root)
    other = source.parent / "other"
    shutil.copytree(source, other)
    Image.fromarray(pixels(28, 28)).save(image_file(other))
    generate(other).check_refused(
        str(Paths(root).tensors("own", "train_3pc")),
        str(other / GREY.repository),
        "the images of 1 samples of 6",
        f"made from {source / GREY.repository}",
        "--overwrite",
    )
    assert tree(root) == files
    after = generate_well(other, "--overwrite")
    assert torch.equal(drawn(after["train_3pc"], 5)[0], torch.from_numpy(pixels(28, 28)))
    assert after["train_3pc"]["origin"] == str(other / GREY.repository)
    assert torch.equal(before["test"]["images"], after["test"]["images"])


def test_the_same_images_from_another_folder_are_up_to_date(source: Path):
    generate_well(source)
    other = source.parent / "other"
    source.rename(other)
    files = tree(source.parent / "root")
    assert generate(other).out.count("images up to date") == 2
    assert tree(source.parent / "root") == files


def test_other_labels_for_the_same_indices(source: Path):
    write_columns(source, {"label": datasets.Value("int64")}, label=LABELS)
    generate_well(source)
    write_columns(source, {"label": datasets.Value("int64")}, label=[1, 0] * N)
    generate(source).check_refused("the labels of 6 samples of 6", "--overwrite")


def test_files_that_changed_but_for_their_path_and_time(source: Path):
    """A cache of the library would give what they held before."""
    folder = source / GREY.repository
    write_columns(source, {"label": AB}, label=LABELS)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    generate_well(source)
    write_columns(source, {"label": AB}, label=[1, 0] * N)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    generate(source).check_refused("the labels of 6 samples of 6")


def test_a_damaged_file_is_written_again(source: Path):
    files = generate_well(source) and tree(source.parent / "root")
    path = Paths(source.parent / "root").tensors("own", "test")
    path.write_bytes(path.read_bytes()[:100])
    generate_well(source)
    assert tree(source.parent / "root") == files


# --- folders and caches --------------------------------------------------------------------------


def test_a_relative_environment_variable_is_made_absolute(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    """Jobs inherit it, and are started from another folder."""
    monkeypatch.chdir(source.parent)
    monkeypatch.setenv("TDA_DATASETS", "source")
    root = source.parent / "root"
    call(
        *("run_parallel", "--experiment", "vit_digits3_10pc", "--backbone", "tiny"),
        *("--root", root),
    ).check_refused("run_subset_generation.py")
    assert os.environ["TDA_DATASETS"] == str(source)
    monkeypatch.setenv("TDA_DATASETS", "source")
    out = call_well("run_subset_generation", "--root", root, "--task", "own")
    assert f"images from {source / GREY.repository}" in out


def test_a_folder_that_would_be_taken_for_the_hub(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(source)
    root = source.parent / "root"
    call("run_subset_generation", "--root", root, "--task", "own").check_refused(
        f"the folder {GREY.repository} in {source} would be taken for the hub's", "--source ."
    )
    assert str(source) in call_well(
        "run_subset_generation", "--root", root, "--task", "own", "--source", "."
    )


@pytest.mark.parametrize(
    ("cause", "of_hub", "says"),
    [
        (PermissionError(13, "Permission denied", "/no/cache"), True, ("/no/cache", "HF_HOME")),
        (OSError(28, "No space left on device"), True, ("No space left", "HF_HOME")),
        (PermissionError(13, "Permission denied", "/no/tmp"), False, ("/no/tmp", "TMPDIR")),
        (OSError(28, "No space left on device"), False, ("No space left", "TMPDIR")),
    ],
)
def test_a_cache_that_cannot_be_written(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    cause: OSError,
    of_hub: bool,
    says: tuple[str, str],
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("An error occurred while generating the dataset") from cause

    monkeypatch.setattr(datasets, "load_dataset", fail)
    root = ("--root", source.parent / "root", "--task", "own")
    where = () if of_hub else ("--source", source)
    call("run_subset_generation", *root, *where).check_refused("cannot write", *says)


def test_a_source_that_cannot_be_read_is_no_cache(source: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(image_file(source)))

    monkeypatch.setattr(datasets, "load_dataset", fail)
    check_refused(source, f"cannot read {source / GREY.repository}", "Permission denied")


def test_no_folder_for_temporary_files(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/tmp")
    check_refused(source, "cannot make a temporary folder", "TMPDIR")


@pytest.mark.parametrize("wrong", ["/no/such/folder", "source/me/own/train"])
def test_a_source_without_the_repository(source: Path, wrong: str):
    root = ("--root", source.parent / "root", "--task", "own")
    result = call("run_subset_generation", *root, "--source", source.parent / wrong)
    result.check_refused("does not exist: --source", "me/own")


class TestFolders:
    """Tasks whose images lie in a folder that the task names, of a shape that it does not."""

    @pytest.fixture
    def folder(self, source: Path, own_task: Callable[[Task], None]) -> Path:
        """A folder of train/ and test/, each of class folders, that the task names."""
        own_task(
            Task("own", (2,), 3, folder=source / GREY.repository, hyperparameters={"epochs": 5})
        )
        return source / GREY.repository

    def test_two_splits(self, source: Path, folder: Path):
        assert generate(source).code == 0
        tensors = load_tensors(Paths(source.parent / "root"), TASKS["own"], "train_2pc")
        assert tensors["images"].shape == (4, 1, 28, 28)
        assert (tensors["n_classes"], tensors["classes"]) == (2, [0, 1])

    def test_no_split(self, source: Path, folder: Path, own_task: Callable[[Task], None]):
        """Class folders alone are one pool; what they are called are the classes' names."""
        (folder / "train" / "0").rename(folder / "train" / "cat")
        (folder / "train" / "1").rename(folder / "train" / "dog")
        own_task(Task("own", (2,), 1, folder=folder / "train", hyperparameters={"epochs": 5}))
        assert "0 cat: 2, 1 dog: 2" in generate(source).out
        paths = Paths(source.parent / "root")
        train, test = (load_tensors(paths, TASKS["own"], s) for s in ("train_2pc", "test"))
        assert not set(train["indices"].tolist()) & set(test["indices"].tolist())
        assert train["class_names"] == ["cat", "dog"]

    def test_sizes_that_are_mixed(self, source: Path, folder: Path):
        Image.new("L", (20, 28)).save(image_file(source))
        check_refused(source, "image 5", "is 20x28 pixels; own takes 28x28 pixels, 8-bit grey")

    def test_a_folder_that_is_not_there(self, source: Path, own_task: Callable[[Task], None]):
        own_task(Task("own", (2,), 1, folder=source / "no", hyperparameters={"epochs": 5}))
        check_refused(source, f"folder of task 'own': {source / 'no'} does not exist")


@pytest.mark.parametrize("named", ["fine_label", "coarse_label", None, "hue"])
def test_the_column_of_labels_is_named(
    source: Path, own_task: Callable[[Task], None], named: str | None
):
    columns = {
        "img": [Image.fromarray(np.full((28, 28), i, dtype=np.uint8)) for i in range(8)],
        "fine_label": [i % 4 for i in range(8)],
        "coarse_label": [i % 2 for i in range(8)],
    }
    features = datasets.Features(
        img=datasets.Image(),
        fine_label=datasets.ClassLabel(names=["ant", "bee", "cat", "dog"]),
        coarse_label=datasets.ClassLabel(names=["insect", "mammal"]),
    )
    folder = source / "columns"
    folder.mkdir()
    data = datasets.Dataset.from_dict(columns, features=features)
    for split in ("train", "test"):
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    own_task(Task("own", (1,), 1, folder=folder, label_column=named, hyperparameters={"epochs": 5}))
    if named is None:
        check_refused(source, "or the task names one in label_column", "fine_label (ClassLabel)")
    elif named == "hue":
        check_refused(source, "there is no column 'hue'", "fine_label (ClassLabel)")
    else:
        names = features[named].names
        assert ", ".join(f"{i} {name}: 1" for i, name in enumerate(names)) in generate(source).out
