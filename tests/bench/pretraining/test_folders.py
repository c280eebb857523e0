"""Image folders: all usual formats; what is corrupt is named, what is no such folder refused."""

import numpy as np
import pytest
import torch
from pictures import BLUE, GREEN, RED, colour_of, refused, solid
from PIL import Image

from lossbench.bench.pretraining.images import CorruptImageError, open_images


@pytest.fixture
def folder(tmp_path):
    """Two classes of PNG files, in an order that is not that of their names."""
    for name, colour in (("b/2.png", BLUE), ("b/1.PNG", GREEN), ("a/deep/1.png", RED)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        solid(colour).save(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("no image")
    (tmp_path / "b/._1.png").write_text("left by another system")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_a_folder_is_a_class(folder):
    images = open_images(f"imagefolder:{folder}", 4)
    assert [colour_of(images[index]) for index in range(len(images))] == [RED, GREEN, BLUE]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.classes == 2
    assert images.skipped == []


def test_the_shorter_side_is_resized_and_the_centre_kept(folder):
    stripes = Image.new("RGB", (90, 30))
    for place, colour in enumerate((RED, GREEN, BLUE)):
        stripes.paste(colour, (30 * place, 0, 30 * place + 30, 30))
    stripes.save(folder / "a/deep/1.png")
    stripes.transpose(Image.Transpose.ROTATE_90).save(folder / "b/1.PNG")
    images = open_images(f"imagefolder:{folder}", 10)
    for index in range(2):
        assert images[index].shape == (3, 10, 10)
        assert colour_of(images[index][:, 1:-1, 1:-1]) == GREEN


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "bmp", "webp", "tiff", "ppm"])
def test_usual_formats_are_read(folder, suffix):
    solid((200, 100, 50)).save(folder / f"a/0.{suffix}")
    image = open_images(f"imagefolder:{folder}", 4)[0].int()
    expected = torch.tensor([200, 100, 50])[:, None, None]
    assert (image - expected).abs().max() <= 4  # some formats lose a little


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_all_modes_become_three_channels(folder, mode):
    path = folder / "a/0.png"
    if mode == "I;16":
        Image.fromarray(np.full((4, 4), 0xFFFF, np.uint16)).save(path)
    elif mode == "P":  # with a transparency for each entry, which Pillow warns of
        solid((255, 255, 255)).convert("P").save(path, transparency=b"\xff" * 256)
    else:
        solid((255, 255, 255)).convert(mode).save(path)
    assert colour_of(open_images(f"imagefolder:{folder}", 4)[0]) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_cut_off(folder):
    Image.fromarray(np.full((4, 4), 0x4321, np.uint16)).save(folder / "a/0.png")
    assert colour_of(open_images(f"imagefolder:{folder}", 4)[0]) == (0x43,) * 3


def test_a_cmyk_jpeg_is_read(folder):
    solid(RED, (32, 32)).convert("CMYK").save(folder / "a/0.jpg")
    red, green, blue = colour_of(open_images(f"imagefolder:{folder}", 4)[0])
    assert red > 240
    assert max(green, blue) < 15


def damaged(path, how):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    else:
        path.write_bytes(b"" if how == "empty" else b"<html>404</html>")


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("0.jpg", "truncated"),
        ("0.jpg", "empty"),
        ("0.jpg", "html"),
        ("0.png", "truncated"),
        ("0.png", "flipped"),
        ("0.webp", "truncated"),
        ("0.tiff", "html"),
    ],
)
def test_a_corrupt_image_is_named_once(folder, file, how):
    path = folder / "a" / file
    damaged(path, how)
    images = open_images(f"imagefolder:{folder}", 4)
    for _ in range(2):
        with pytest.raises(CorruptImageError, match=r"0\.\w+ cannot be read: ") as error:
            images[0]
        assert error.value.name == str(path)
        assert "\n" not in str(error.value)
    assert images.skipped == [str(path)]
    assert colour_of(images[1]) == RED


def test_a_file_that_has_gone_is_named(folder):
    images = open_images(f"imagefolder:{folder}", 4)
    (folder / "b/2.png").unlink()
    with pytest.raises(CorruptImageError, match=r"2\.png"):
        images[2]


def test_running_out_of_memory_is_no_corrupt_image(folder, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("lossbench.bench.pretraining.pixels.square", full)
    images = open_images(f"imagefolder:{folder}", 4)
    with pytest.raises(MemoryError):
        images[0]
    assert images.skipped == []


def test_folders_that_are_no_classes_of_images_are_refused(tmp_path):
    source = f"imagefolder:{tmp_path}"
    refused(f"{source}/none", "no such folder")
    refused(source, "holds no class folders")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    refused(source, r"splits \(train, val\), not classes")
    refused(f"{source}/train", "holds no class folders")
    (tmp_path / "train/cat").mkdir()
    refused(f"{source}/train", r"one class only \(cat\)")
    (tmp_path / "train/dog").mkdir()
    refused(f"{source}/train", "cat holds no images")
    solid(RED).save(tmp_path / "train/cat/1.png")
    refused(f"{source}/train", "dog holds no images")
