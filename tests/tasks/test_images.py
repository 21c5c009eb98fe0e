"""Images are read as they were stored, split without loss, standardized by the training split, or refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.tasks.data import encoded_images, image_arrays, image_files
from spectra_cli.tasks.data import parquet as parquet_columns
from spectra_cli.tasks.data.images import ImageData, LabelledImages, embedded_digits, read_images

Array = np.ndarray[Any, Any]


def random_images(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encoded(image: Array | PIL.Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(content, kind)
    return content.getvalue()


def write_parquet(
    path: Path, contents: Sequence[bytes | None], labels: Any, *, image: str = "image", label: str = "label"
) -> Path:
    """As the `datasets` library stores images: structs of bytes and a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = pa.array(
        [{"bytes": content, "path": "0.png"} for content in contents],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({image: structs, label: labels}), path)
    return path


def write_images(path: Path, images: Array, labels: Any = None, **names: str) -> Path:
    return write_parquet(
        path, [encoded(image) for image in images], range(len(images)) if labels is None else labels, **names
    )


def in_channels(images: Array) -> Array:
    """(n, height, width) or (n, height, width, 3) -> (n, channels, height, width)."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def all_images(data: ImageData) -> dict[int, Array]:
    """Every image by its label, which is a number of its own in these tests."""
    found = {}
    for split in (data.train, data.val):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        for image, label in zip(split.images.numpy(), split.labels.tolist(), strict=True):
            assert label not in found
            found[label] = image
    return found


# The embedded digits


def test_digits_are_those_of_the_uci_repository() -> None:
    """As many of each class as optdigits.names tells of its test set; the first one as scikit-learn's pages show it."""
    data = embedded_digits()
    counts = torch.bincount(torch.cat([data.train.labels, data.val.labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (data.train.images.shape, data.val.images.shape) == ((1347, 1, 8, 8), (450, 1, 8, 8))
    assert (data.num_classes, data.shape) == (10, (1, 8, 8))
    zero = np.array([[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0], [0, 3, 15, 2, 0, 11, 8, 0]])
    places = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    first = int((places == 0).nonzero())
    images = torch.cat([data.train.images, data.val.images])
    np.testing.assert_array_equal(images[first, 0, :3].numpy(), np.rint(zero * 255 / 16))
    assert int(torch.cat([data.train.labels, data.val.labels])[first]) == 0


def test_digits_take_all_levels_from_black_to_white() -> None:
    assert sorted(embedded_digits().train.images.unique().tolist()) == [round(255 * level / 16) for level in range(17)]


def test_digits_state_their_source_and_licence() -> None:
    text = files("spectra_cli.tasks.data").joinpath("digits.source.txt").read_text()
    for said in ("Alpaydin", "Kaynak", "CC BY 4.0", "10.24432/C50P49", "SHA-256"):
        assert said in text


# Standardization and the order of evaluations


def labelled(images: Array, labels: Sequence[int] | None = None) -> LabelledImages:
    chosen = torch.arange(len(images)) if labels is None else torch.tensor(labels)
    return LabelledImages(torch.from_numpy(images), chosen)


def test_training_images_are_standardized_per_channel_and_others_by_the_same_numbers() -> None:
    train, val = random_images(50, 3, 5, 4), random_images(9, 3, 5, 4, seed=1)
    train[:, 1] //= 8
    data = ImageData(labelled(train), labelled(val), "noise")
    mean = train.astype(np.float64).mean((0, 2, 3), keepdims=True)
    deviation = train.astype(np.float64).std((0, 2, 3), keepdims=True)
    places = torch.tensor([4, 0, 7])
    for split, images in (("train", train), ("val", val)):
        expected = (images[places.numpy()] - mean) / deviation
        np.testing.assert_allclose(data.standardized(split, places).numpy(), expected, rtol=1e-5, atol=1e-5)
    whole = data.standardized("train", torch.arange(50)).double()
    torch.testing.assert_close(whole.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.var((0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-5, atol=0)


def test_a_constant_channel_becomes_zero() -> None:
    images = random_images(6, 3, 2, 2)
    images[:, 2] = 77
    data = ImageData(labelled(images), labelled(images), "noise")
    standardized = data.standardized("train", torch.arange(6))
    assert bool(standardized.isfinite().all())
    assert standardized[:, 2].abs().max() == 0


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (9, 8), (1001, 500), (7, 7), (3, 100)])
def test_batches_hold_every_image_once_and_are_of_nearly_equal_sizes(count: int, batch_size: int) -> None:
    data = ImageData(labelled(random_images(count, 1, 2, 2)), labelled(random_images(2, 1, 2, 2)), "noise")
    batches = data.evaluation_batches("train", None, batch_size)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat(list(batches)).tolist()) == list(range(count))


def test_fewer_examples_are_the_first_ones_of_an_order_that_is_not_the_files() -> None:
    data = embedded_digits()
    whole = torch.cat(list(data.evaluation_batches("val", None, 100)))
    assert torch.cat(list(data.evaluation_batches("val", 70, 100))).tolist() == whole[:70].tolist()
    assert whole[:70].tolist() != sorted(whole[:70].tolist())


# Parquet


GREY = random_images(7, 6, 5)
COLOUR = random_images(7, 6, 5, 3)


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("folder", [".", "data", "plain_text"])
def test_a_directory_of_shards_is_read_as_it_was_stored(tmp_path: Path, images: Array, folder: str) -> None:
    """Images and labels stay together, in the order of the shards; ``test`` is for validation."""
    write_images(tmp_path / folder / "train-00000-of-00002.parquet", images[:3], [0, 1, 2])
    write_images(tmp_path / folder / "train-00001-of-00002.parquet", images[3:5], [3, 4])
    write_images(tmp_path / folder / "test-00000-of-00001.parquet", images[5:], [5, 6])
    (tmp_path / "README.md").write_text("a data set")
    data = read_images(tmp_path)
    np.testing.assert_array_equal(data.train.images.numpy(), in_channels(images[:5]))
    np.testing.assert_array_equal(data.val.images.numpy(), in_channels(images[5:]))
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0, 1, 2, 3, 4], [5, 6])
    assert "validated on 'test'" in data.origin


def test_a_validation_split_goes_before_a_test_split(tmp_path: Path) -> None:
    for split, label in (("train", 0), ("validation", 1), ("test", 2)):
        write_images(tmp_path / f"{split}-00000-of-00001.parquet", GREY[:1], [label])
    data = read_images(tmp_path)
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0], [1])


def test_columns_of_cifar_100(tmp_path: Path) -> None:
    """``img``, and ``fine_label`` whatever ``coarse_label`` says."""
    path = write_images(tmp_path / "x.parquet", COLOUR[:4], [10, 11, 12, 99], image="img", label="fine_label")
    table = pq.read_table(path)
    pq.write_table(table.append_column("coarse_label", pa.array([0, 0, 1, 1])), path)
    assert sorted(all_images(read_images(path))) == [10, 11, 12, 99]
    assert read_images(path).num_classes == 100


def test_images_in_a_plain_column_of_bytes(tmp_path: Path) -> None:
    contents = [encoded(image) for image in GREY]
    pq.write_table(pa.table({"image": contents, "label": range(7)}), tmp_path / "x.parquet")
    found = all_images(read_images(tmp_path / "x.parquet"))
    np.testing.assert_array_equal([found[label] for label in range(7)], in_channels(GREY))


def test_a_tenth_of_a_single_split_is_held_out(tmp_path: Path) -> None:
    """Each image is in one of the splits, the same one every time; and it is said."""
    images = random_images(40, 3, 3)
    path = write_images(tmp_path / "all.parquet", images)
    data, again = read_images(path), read_images(path)
    assert (len(data.train), len(data.val)) == (36, 4)
    found = all_images(data)
    np.testing.assert_array_equal([found[label] for label in range(40)], in_channels(images))
    assert data.val.labels.tolist() == again.val.labels.tolist() != [36, 37, 38, 39]
    assert "one split only: 4 of the 40 images" in data.origin


@pytest.mark.parametrize("coloured", [{0}, {3}, {6}, {0, 1, 2, 3, 4, 5, 6}])
def test_grey_images_among_coloured_ones_get_three_equal_channels(tmp_path: Path, coloured: set[int]) -> None:
    contents = [encoded(COLOUR[i] if i in coloured else GREY[i]) for i in range(7)]
    found = all_images(read_images(write_parquet(tmp_path / "x.parquet", contents, range(7))))
    for i in range(7):
        expected = COLOUR[i] if i in coloured else np.stack([GREY[i]] * 3, axis=-1)
        np.testing.assert_array_equal(found[i], in_channels(expected[None])[0])


def test_a_grey_split_beside_a_coloured_one_gets_three_channels(tmp_path: Path) -> None:
    write_images(tmp_path / "train.parquet", GREY)
    write_images(tmp_path / "test.parquet", COLOUR)
    data = read_images(tmp_path)
    np.testing.assert_array_equal(data.train.images.numpy(), np.repeat(in_channels(GREY), 3, axis=1))
    assert data.standardized("train", torch.arange(7)).shape == (7, 3, 6, 5)


def test_modes_of_eight_bits_are_read(tmp_path: Path) -> None:
    """Black and white, with a palette, with transparency, and JPEG up to its loss."""
    picture = PIL.Image.fromarray(COLOUR[0])
    smooth = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    cases = {
        "bits": (encoded(PIL.Image.fromarray(GREY[0] > 127)), (GREY[0] > 127) * 255, 0),
        "palette": (encoded(picture.quantize(256)), COLOUR[0], 0),
        "transparency": (encoded(PIL.Image.fromarray(np.dstack([COLOUR[0], GREY[0]]))), COLOUR[0], 0),
        "JPEG": (encoded(smooth, "JPEG"), smooth, 12),
    }
    for name, (content, expected, tolerance) in cases.items():
        path = write_parquet(tmp_path / f"{name}.parquet", [content] * 2, [0, 1])
        found = all_images(read_images(path))[0].astype(int)
        assert np.abs(found - in_channels(np.asarray(expected)[None])[0]).max() <= tolerance, name


# Arrays


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_arrays_of_keras_and_of_medmnist(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    """Labels of MedMNIST are a column."""
    column = (lambda labels: labels[:, None]) if "train_images" in names else (lambda labels: labels)
    arrays = (GREY[:5], column(np.arange(5, dtype=np.uint8)), GREY[5:], column(np.array([5, 6])))
    data = read_images(save(tmp_path / "x.npz", **dict(zip(names, arrays, strict=True))))
    np.testing.assert_array_equal(data.train.images.numpy(), in_channels(GREY[:5]))
    np.testing.assert_array_equal(data.val.images.numpy(), in_channels(GREY[5:]))
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0, 1, 2, 3, 4], [5, 6])


def test_val_of_medmnist_goes_before_its_test(tmp_path: Path) -> None:
    splits = {"train": 0, "test": 1, "val": 2}
    arrays = {f"{split}_images": GREY[:1] for split in splits}
    arrays |= {f"{split}_labels": np.array([[label]]) for split, label in splits.items()}
    data = read_images(save(tmp_path / "x.npz", **arrays))
    assert data.val.labels.tolist() == [2]


@pytest.mark.parametrize(
    "stored",
    [
        COLOUR,
        in_channels(COLOUR),
        COLOUR.astype(">i4"),
        (COLOUR / 255).astype(np.float32),
        COLOUR / 255,
        np.clip(COLOUR / 255 - 0.001, 0, 1),
        np.asfortranarray(COLOUR),
    ],
    ids=["last", "first", "int32", "float32", "float64", "nearest", "fortran"],
)
@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("x_train", "y_train")])
def test_layouts_and_types_of_arrays(tmp_path: Path, stored: Array, names: tuple[str, str]) -> None:
    data = read_images(save(tmp_path / "x.npz", **{names[0]: stored, names[1]: np.arange(7)}))
    found = all_images(data)
    np.testing.assert_array_equal([found[label] for label in range(7)], in_channels(COLOUR))
    assert (len(data.val), "one split only" in data.origin) == (1, True)


# What is refused


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data do not have, with the right checksum."""
    content = bytearray(encoded(GREY[0]))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


PNG = encoded(GREY[0])
NAMES = ("x_train", "y_train")


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def parquet(*contents: bytes | None, labels: Any = None, **names: str) -> Callable[[Path], Path]:
    chosen = range(len(contents)) if labels is None else labels
    return lambda folder: write_parquet(folder / "x.parquet", contents, chosen, **names)


def npz(**arrays: Any) -> Callable[[Path], Path]:
    return lambda folder: save(folder / "x.npz", **arrays)


def pickled(folder: Path) -> Path:
    return save(
        folder / "x.npz", x_train=np.array([Payload(str(folder / "owned"))], dtype=object), y_train=np.zeros(1, int)
    )


def pickled_beside(folder: Path) -> Path:
    path = folder / "x.npz"
    path.write_bytes(pickle.dumps(Payload(str(folder / "owned"))))
    return path


def member(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.npz", "w") as archive:
            archive.writestr(name, content)
            archive.writestr("y_train.npy", b"")
        return folder / "x.npz"

    return write


def header(shape: tuple[int, ...]) -> bytes:
    """The beginning of an array in numpy's format, and no data."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue()


def header_of(text: str) -> bytes:
    """The beginning of an array with anything for its header."""
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(text)) + text.encode()


def npz_of_other_values(folder: Path) -> Path:
    """Whose checksum is that of the values before."""
    path = folder / "x.npz"
    np.savez(path, x_train=GREY, y_train=np.arange(7))
    content = path.read_bytes()
    values = GREY.tobytes()
    assert values in content
    path.write_bytes(content.replace(values, bytes(len(values))))
    return path


def cut(make: Callable[[Path], Path], size: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(path.read_bytes()[:size])
        return path

    return write


def shards(*names: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for name in names:
            write_images(folder / name, GREY)
        return folder

    return write


def text(folder: Path) -> Path:
    (folder / "x.parquet").write_text("hello, this is text")
    return folder / "x.parquet"


def two_sizes(folder: Path) -> Path:
    write_images(folder / "train.parquet", GREY)
    write_images(folder / "test.parquet", GREY[:, :4])
    return folder


REFUSED: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "absent.parquet", "no such file"),
    "text": (text, "neither Parquet nor .npz"),
    "empty directory": (shards(), "no train-\\*.parquet"),
    "only a test split": (shards("test-00000-of-00001.parquet"), "no train-\\*.parquet"),
    "two configurations": (shards("a/train.parquet", "b/train.parquet"), "several folders hold .*: a, b"),
    "missing shard": (shards("train-00000-of-00002.parquet"), "train-00001-of-00002.parquet is absent"),
    "missing test shard": (
        shards("train.parquet", "test-00001-of-00002.parquet"),
        "test-00000-of-00002.parquet is absent",
    ),
    "cut Parquet": (cut(parquet(PNG, PNG), 300), "cannot be read as Parquet"),
    "damaged Parquet": (cut(parquet(PNG, PNG), 4), "cannot be read as Parquet"),
    "no column of images": (parquet(PNG, image="picture"), "no column of images: its columns are picture, label"),
    "no column of labels": (parquet(PNG, label="class"), "no column of labels"),
    "labels of text": (parquet(PNG, labels=["cat"]), "'label' holds string"),
    "missing label": (parquet(PNG, PNG, labels=pa.array([1, None])), "without a value in 'label'"),
    "missing image": (parquet(PNG, None), "without the bytes of an image"),
    "negative label": (parquet(PNG, PNG, labels=[0, -1]), "the label -1"),
    "enormous label": (parquet(PNG, PNG, labels=[0, 2**40]), f"the label {2**40}"),
    "one image": (parquet(PNG), "one image, which cannot be split"),
    "no image": (parquet(labels=pa.array([], pa.int64())), "no image, which cannot be split"),
    "images of two sizes": (parquet(PNG, encoded(GREY[0][:4])), "image 1: is of 4 x 5 pixels, the first one of 6 x 5"),
    "splits of two sizes": (two_sizes, "different shapes: 1 x 6 x 5 and 1 x 4 x 5"),
    "cut PNG": (parquet(PNG, PNG[:-30]), "image 1: cannot be decoded"),
    "half a PNG header": (parquet(PNG[:20], PNG), "image 0: cannot be decoded"),
    "text for an image": (parquet(b"hello", PNG), r"image 0: cannot be decoded as PNG or JPEG \(its beginning"),
    "no bytes for an image": (parquet(b"", PNG), "image 0: cannot be decoded"),
    "another format": (parquet(encoded(GREY[0], "GIF"), PNG), "image 0: cannot be decoded"),
    "16 bits": (parquet(encoded(GREY[0].astype(np.uint16))), "pixels of mode I;16"),
    "bomb": (parquet(claiming(60_000, 60_000)), "image 0: cannot be decoded .*decompression bomb"),
    "smaller bomb": (parquet(claiming(10_000, 10_000)), "image 0: cannot be decoded .*decompression bomb"),
    "many large images": (parquet(*[claiming(8000, 8000)] * 20), "image 0: is of 8000 x 8000 pixels.*proportion"),
    "pickled arrays": (pickled, "'x_train' holds Python objects, which would have to be unpickled"),
    "a pickle": (pickled_beside, "neither Parquet nor .npz"),
    "cut .npz": (cut(npz(x_train=GREY, y_train=np.arange(7)), 200), "cannot be read as .npz"),
    "no array": (member("x_train.npy", b"hello"), "'x_train' is no array"),
    "lying array": (member("x_train.npy", header((10**12, 8, 8))), "'x_train' is not of the size that its header"),
    "array beyond all numbers": (member("x_train.npy", header((10**400, 8, 8))), "'x_train' is not of the size"),
    "nothing beyond all numbers": (member("x_train.npy", header((10**400, 0, 8))), "'x_train' is not of the size"),
    "header that Python cannot parse": (member("x_train.npy", header_of("[" * 9000)), "'x_train' is no array"),
    "header without an end": (member("x_train.npy", header_of("{'descr': [")), "'x_train' is no array"),
    "other values": (npz_of_other_values, "cannot be read as .npz"),
    "other arrays": (npz(weights=GREY), "no images for training: its arrays are weights"),
    "test arrays only": (npz(x_test=GREY, y_test=np.arange(7)), "no images for training"),
    "no labels": (npz(x_train=GREY), "'x_train' without 'y_train'"),
    "too few labels": (npz(x_train=GREY, y_train=np.arange(6)), "7 images and 'y_train' 6 labels"),
    "several labels": (npz(x_train=GREY, y_train=np.zeros((7, 14), int)), "'y_train' holds int64 of shape \\(7, 14\\)"),
    "labels of floats": (npz(x_train=GREY, y_train=np.zeros(7)), "'y_train' holds float64"),
    "labels beyond int64": (
        npz(x_train=GREY, y_train=np.full(7, 2**63, np.uint64)),
        "'y_train' holds 9223372036854775808",
    ),
    "flat images": (npz(x_train=GREY.reshape(7, -1), y_train=np.arange(7)), "of shape \\(7, 30\\)"),
    "four channels": (npz(x_train=np.zeros((7, 6, 5, 4)), y_train=np.arange(7)), "of shape \\(7, 6, 5, 4\\)"),
    "images without pixels": (npz(x_train=GREY[:, :0], y_train=np.arange(7)), "of shape \\(7, 0, 5\\)"),
    "floats up to 255": (npz(x_train=GREY.astype(float), y_train=np.arange(7)), "outside 0..1"),
    "not a number": (npz(x_train=np.full((7, 2, 2), np.nan), y_train=np.arange(7)), "outside 0..1"),
    "complex": (npz(x_train=GREY.astype(complex), y_train=np.arange(7)), "holds complex128"),
    "integers beyond 255": (npz(x_train=GREY.astype(int) * 2, y_train=np.arange(7)), "outside 0..255"),
    "empty training split": (
        npz(x_train=GREY[:0], y_train=np.arange(0), x_test=GREY, y_test=np.arange(7)),
        "no image in the split 'train'",
    ),
    "empty validation split": (
        npz(x_train=GREY, y_train=np.arange(7), x_test=GREY[:0], y_test=np.arange(0)),
        "no image in the split 'val'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_place(tmp_path: Path, name: str) -> None:
    """An error of the input that names the file, and nothing of the file is executed."""
    make, reason = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        read_images(path)
    assert str(caught.value).startswith(str(tmp_path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.filterwarnings("default")
def test_a_warning_of_a_decompression_bomb_is_an_error_for_every_user(tmp_path: Path) -> None:
    """Also where warnings are not errors as they are in the other tests."""
    with pytest.raises(InputError, match="decompression bomb"):
        read_images(parquet(claiming(10_000, 10_000))(tmp_path))


def test_pickles_of_the_tests_do_harm_where_they_are_loaded(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    np.load(pickled(tmp_path), allow_pickle=True)["x_train"]
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "make",
    [
        parquet(*[encoded(np.zeros((512, 512), np.uint8))] * 50),
        npz(images=np.zeros((90, 400, 400), np.uint8), labels=np.zeros(90, np.uint8)),
    ],
    ids=["Parquet", "npz"],
)
def test_files_that_expand_beyond_all_proportion_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    """Beyond what is allowed in any case; which is 1 GiB, and nothing here so that the test needs no gigabyte."""
    path = make(tmp_path)
    assert len(read_images(path).train) >= 45
    monkeypatch.setattr(image_files, "ALWAYS_BYTES", 0)
    with pytest.raises(InputError, match="out of all proportion"):
        read_images(path)


def peak_bytes(read: Callable[[], object]) -> int:
    """What Python and numpy took at most during a call."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_arrays_take_no_more_than_their_values_in_bytes(tmp_path: Path) -> None:
    """Floats are stored in eight times the memory of what is kept of them, and are never there all at once."""
    path = save(tmp_path / "x.npz", images=np.zeros((3000, 32, 32)), labels=np.zeros(3000, int))
    assert peak_bytes(lambda: image_arrays.read_npz(path, 2**30)) < 12_000_000 < 8 * 3000 * 32 * 32


def test_what_headers_tell_is_compared_before_values_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", x_train=np.full((3000, 32, 32), 7.0, np.float16), y_train=np.arange(2))

    def refused() -> None:
        with pytest.raises(InputError, match="3000 images and 'y_train' 2 labels"):
            read_images(path)

    assert peak_bytes(refused) < 1_000_000


def test_converted_sizes_count_as_well(tmp_path: Path) -> None:
    """Labels of one byte each are kept in eight."""
    path = save(tmp_path / "x.npz", images=np.zeros((1000, 1, 1), np.uint8), labels=np.zeros(1000, np.uint8))
    assert len(image_arrays.read_npz(path, 9000)["images"][1]) == 1000
    with pytest.raises(InputError, match="out of all proportion"):
        image_arrays.read_npz(path, 8999)


@pytest.mark.parametrize("stored", [GREY, np.asfortranarray(COLOUR / 255)], ids=["bytes", "fortran floats"])
def test_arrays_of_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Array) -> None:
    monkeypatch.setattr(image_arrays, "CHUNK", 4)
    pixels, labels = image_arrays.read_npz(save(tmp_path / "x.npz", x=stored, y=np.arange(7)), 2**20)["x"]
    np.testing.assert_array_equal(pixels, GREY if stored is GREY else COLOUR)
    assert labels.tolist() == list(range(7))


def repeated(content: bytes, count: int, folder: Path) -> Path:
    """Rows that all have the same bytes, which the file holds once."""
    structs = pa.array([{"bytes": content}] * count, pa.struct([("bytes", pa.binary())]))
    path = folder / "x.parquet"
    pq.write_table(pa.table({"image": structs, "label": range(count)}), path, compression="zstd")
    return path


def test_the_bytes_of_images_that_repeat_are_not_unpacked_together(tmp_path: Path) -> None:
    """200 rows of the same 100 kB are never 20 MB at once."""
    content = PNG + bytes(100_000)
    path = repeated(content, 200, tmp_path)
    assert path.stat().st_size < 10_000
    batches = parquet_columns.column_batches(path, "image", "image.bytes", ["label"], 2**30)
    found = [(batch.num_rows, batch.nbytes) for batch in batches]
    assert sum(rows for rows, _ in found) == 200
    assert max(size for _, size in found) < 2 * len(content)
    assert peak_bytes(lambda: read_images(path)) < 10 * len(content)


def test_images_that_do_not_fit_into_memory_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 8192 failed")

    path = write_images(tmp_path / "x.parquet", GREY)
    monkeypatch.setattr(encoded_images, "column_batches", full)
    with pytest.raises(InputError, match=r"x.parquet: does not fit into memory\. Give a part of it"):
        read_images(path)


def test_pillow_is_asked_for_by_the_name_of_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(PNG, PNG)(tmp_path)
    arrays = npz(x_train=GREY, y_train=np.arange(7))(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spectra-weights\[images\]'"):
        read_images(path)
    assert len(read_images(arrays).train) == 6
