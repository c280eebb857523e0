"""Data sets of Hugging Face: columns are found by their type, splits by their name."""

import datasets
import pytest
from pictures import BLUE, RED, colour_of, refused, solid

from lossbench.bench.pretraining.images import CorruptImageError, open_images


@pytest.fixture
def saved(tmp_path):
    """A data set of three images, the last of which is cut off."""
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "picture": datasets.Image(),
        }
    )
    red, blue = (tmp_path / name for name in ("red.png", "blue.png"))
    solid(RED, (8, 6)).save(red)
    solid(BLUE).save(blue)
    pictures = [
        {"bytes": red.read_bytes(), "path": None},
        {"bytes": blue.read_bytes(), "path": None},
        {"bytes": red.read_bytes()[:40], "path": None},
    ]
    columns = {"id": [1, 2, 3], "kind": [1, 0, None], "picture": pictures}
    return datasets.Dataset.from_dict(columns, features)


def check_saved(images):
    assert [colour_of(images[index]) for index in range(2)] == [RED, BLUE]
    assert images.labels.tolist() == [1, 0, -1]
    assert images.classes == 2
    with pytest.raises(CorruptImageError, match="cannot be read"):
        images[2]
    assert images.skipped == [f"{images.name}[2]"]


def test_a_saved_data_set_is_read(saved, tmp_path):
    saved.save_to_disk(tmp_path / "one")
    check_saved(open_images(f"hf:{tmp_path / 'one'}", 4))
    refused(f"hf:{tmp_path / 'one'}:test", "leave ':test' out")


def test_a_saved_format_changes_nothing(saved, tmp_path):
    saved.with_format("torch").save_to_disk(tmp_path / "one")
    check_saved(open_images(f"hf:{tmp_path / 'one'}", 4))


def test_a_split_of_a_saved_data_set_is_read(saved, tmp_path):
    two = datasets.DatasetDict({"train": saved, "test": saved.select([1])})
    two.save_to_disk(tmp_path / "two")
    check_saved(open_images(f"hf:{tmp_path / 'two'}", 4))
    assert len(open_images(f"hf:{tmp_path / 'two'}:test", 4)) == 1
    refused(f"hf:{tmp_path / 'two'}:dev", "no split 'dev'; known: test, train")


def test_a_data_set_is_loaded_by_its_name(saved, tmp_path, monkeypatch):
    """Here that of a folder of Parquet files, as the hub holds them."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repository").mkdir()
    saved.to_parquet(tmp_path / "repository/train.parquet")
    check_saved(open_images(f"hf:{tmp_path / 'repository'}:train", 4))
    refused(f"hf:{tmp_path / 'repository'}:train[:0]", "empty|no data")
    refused(f"hf:{tmp_path / 'repository'}:dev", "cannot be loaded: ValueError: Unknown split")


def test_labels_may_be_missing_but_not_images(saved, tmp_path):
    saved.remove_columns("kind").save_to_disk(tmp_path / "unlabelled")
    images = open_images(f"hf:{tmp_path / 'unlabelled'}", 4)
    assert images.labels is None
    assert images.classes == 0
    assert colour_of(images[1]) == BLUE
    saved.remove_columns("picture").save_to_disk(tmp_path / "blind")
    refused(f"hf:{tmp_path / 'blind'}", r"no column of images; it has id \(Value\), kind \(Class")


def test_a_data_set_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    refused(f"hf:{tmp_path}/none", "cannot be loaded: ")
