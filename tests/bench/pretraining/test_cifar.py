"""CIFAR: both published forms are read; damage is named, and no pickle runs code."""

import os
import pickle
import struct

import numpy as np
import pytest
from pictures import GREEN, RED, colour_of, refused

from lossbench.bench.pretraining.images import open_images


def python2_pickle(pixels, labels, key):
    """The published files: protocol 2 of Python 2, whose text is bytes."""

    def text(content):
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value):
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01" + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array += dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key) + listed + b"u."


def python3_pickle(pixels, labels, key):
    return pickle.dumps({b"data": pixels, key: list(labels)})


def binary(pixels, labels, key):
    head = [labels] if key == b"labels" else [[0] * len(labels), labels]
    return np.column_stack([*(np.array(column, np.uint8) for column in head), pixels]).tobytes()


def write_cifar10(parent, writer=python2_pickle, suffix=""):
    """Two images in each of the five files; the first is red above green."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), np.uint8)
    pixels[0] = 0
    pixels[0, 0, :16] = pixels[0, 1, 16:] = 255
    labels = [3, 9, 0, 1, 2, 4, 5, 6, 7, 8]
    parent.mkdir(parents=True)
    for part in range(5):
        rows = slice(2 * part, 2 * part + 2)
        content = writer(pixels[rows].reshape(2, -1), labels[rows], b"labels")
        (parent / f"data_batch_{part + 1}{suffix}").write_bytes(content)
    return pixels, labels


@pytest.mark.parametrize(
    ("writer", "folder", "suffix"),
    [
        (python2_pickle, "cifar-10-batches-py", ""),
        (python3_pickle, "cifar-10-batches-py", ""),
        (binary, "cifar-10-batches-bin", ".bin"),
    ],
)
@pytest.mark.parametrize("parent", [True, False])
def test_cifar10_is_read(tmp_path, writer, folder, suffix, parent):
    pixels, labels = write_cifar10(tmp_path / folder, writer, suffix)
    images = open_images(f"cifar10:{tmp_path if parent else tmp_path / folder}", 32)
    assert (len(images), images.classes) == (10, 10)
    assert images.labels.tolist() == labels
    assert colour_of(images[0][:, :16]) == RED
    assert colour_of(images[0][:, 16:]) == GREEN
    for index in range(10):
        assert (images[index].numpy() == pixels[index]).all()


@pytest.mark.parametrize(
    ("writer", "file"),
    [(python2_pickle, "cifar-100-python/train"), (binary, "cifar-100-binary/train.bin")],
)
def test_cifar100_is_read_with_its_fine_labels(tmp_path, writer, file):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_bytes(writer(np.full((3, 3072), 8, np.uint8), [99, 7, 0], b"fine_labels"))
    images = open_images(f"cifar100:{tmp_path}", 64)
    assert images.labels.tolist() == [99, 7, 0]
    assert images.classes == 100
    assert images[2].shape == (3, 64, 64)
    assert colour_of(images[2]) == (8, 8, 8)


class Malicious:
    """Pickled, it is a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_runs_code_is_refused_before_it_does(tmp_path, protocol):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    spoils = tmp_path / "spoils"
    for call in (Malicious(os.mkdir, str(spoils)), Malicious(eval, f"open({str(spoils)!r}, 'w')")):
        content = pickle.dumps({b"data": call, b"labels": [1]}, protocol)
        (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(content)
        refused(f"cifar10:{tmp_path}", r"data_batch_2 is refused .*only arrays are read")
        assert not spoils.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"not a pickle", "damaged"),
        (python3_pickle(np.zeros((2, 3072), np.uint8), [1, 2], b"labels")[:3000], "damaged"),
        (python3_pickle(np.zeros((2, 3072), np.uint8), [1, 2], b"names"), "damaged.*labels"),
        (python3_pickle(np.zeros((2, 3072), np.uint8), [1], b"labels"), "damaged|labels"),
        (python3_pickle(np.zeros((2, 3072)), [1, 2], b"labels"), "float64 pixels"),
        (python3_pickle(np.zeros((2, 784), np.uint8), [1, 2], b"labels"), r"\(2, 784\)"),
        (python3_pickle(np.zeros((0, 3072), np.uint8), [], b"labels"), r"\(0, 3072\)"),
        (python3_pickle(np.zeros((2, 3072), np.uint8), [1, 10], b"labels"), "from 1 to 10"),
        (pickle.dumps([1, 2]), "damaged"),
    ],
)
def test_a_damaged_file_of_cifar_is_named(tmp_path, content, words):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(content)
    refused(f"cifar10:{tmp_path}", rf"data_batch_3.*({words})")


def test_missing_files_of_cifar_are_named(tmp_path):
    refused(f"cifar10:{tmp_path}/none", "no such folder")
    refused(f"cifar10:{tmp_path}", "it needs cifar-10-batches-py/data_batch_1 or")
    write_cifar10(tmp_path / "cifar-10-batches-py")
    refused(f"cifar100:{tmp_path}", "holds no cifar100 files")
    (tmp_path / "cifar-10-batches-py/data_batch_4").unlink()
    refused(f"cifar10:{tmp_path}", "lacks data_batch_4")


def test_a_truncated_binary_file_is_damaged(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin", binary, ".bin")
    path = tmp_path / "cifar-10-batches-bin/data_batch_5.bin"
    path.write_bytes(path.read_bytes()[:-1])
    refused(f"cifar10:{tmp_path}", r"data_batch_5\.bin is damaged")
