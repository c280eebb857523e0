"""Batches: each image once an epoch, no image on two devices, the same after a resume."""

import threading
from itertools import islice

import pytest
import torch
from hypothesis import given, settings, strategies
from PIL import Image

from lossbench.bench.pretraining.batches import Batches, epoch_order
from lossbench.bench.pretraining.images import CorruptImageError, open_images
from lossbench.bench.pretraining.pixels import InMemory

UP_TO = strategies.integers(1, 5)


class Numbered:
    """Images that show their index; some of them cannot be read."""

    name, labels, classes = "numbered", None, 0

    def __init__(self, count, corrupt=()):
        self.count, self.corrupt = count, corrupt
        self.skipped, self.readers = [], set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.readers.add(threading.current_thread())
        if index in self.corrupt:
            raise CorruptImageError(f"image {index}", "it is corrupt")
        return torch.full((3, 1, 1), index, dtype=torch.uint8)


def numbers(batch):
    """The indices that the images of a batch show."""
    assert batch.dtype == torch.uint8
    assert batch.shape[1:] == (3, 1, 1)
    return batch[:, 0, 0, 0].tolist()


def in_memory(count):
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 1, 1)
    return InMemory("numbered", pixels, 1)


@given(
    batch=UP_TO, world=UP_TO, extra=strategies.integers(0, 60), seed=strategies.integers(0, 2**40)
)
@settings(deadline=None)
def test_an_epoch_has_each_image_at_most_once_over_all_devices(batch, world, extra, seed):
    images = in_memory(batch * world + extra)
    devices = [Batches(images, batch, seed, rank, world) for rank in range(world)]
    steps = devices[0].steps_per_epoch
    assert steps == len(images) // (batch * world)
    for epoch in range(2):
        seen = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            for device in devices:
                seen += numbers(device.batch_at(step))
        assert len(seen) == len(set(seen)) == steps * batch * world


@given(batch=UP_TO, world=UP_TO, extra=strategies.integers(0, 40), step=strategies.integers(0, 50))
@settings(deadline=None)
def test_devices_share_the_batch_of_one(batch, world, extra, step):
    """Sixteen of one are four of four: what is trained does not depend on the devices."""
    images = in_memory(batch * world + extra)
    shares = [Batches(images, batch, 3, rank, world).batch_at(step) for rank in range(world)]
    assert torch.equal(torch.cat(shares), Batches(images, batch * world, 3).batch_at(step))


@given(
    batch=UP_TO,
    extra=strategies.integers(0, 30),
    corrupt=strategies.sets(strategies.integers(0, 34), max_size=4),
    resumed=strategies.integers(0, 12),
    workers=strategies.integers(0, 2),
)
@settings(deadline=None, max_examples=50)
def test_a_resumed_run_reads_the_same_batches(batch, extra, corrupt, resumed, workers):
    images = Numbered(batch + extra + len(corrupt), corrupt)
    whole = islice(Batches(images, batch, 1).start(), resumed + 3)
    later = Batches(images, batch, 1, workers=workers).start(resumed)
    expected = list(whole)[resumed:]
    assert all(torch.equal(each, next(later)) for each in expected)
    later.close() if workers else None
    assert torch.equal(Batches(images, batch, 1).batch_at(resumed), expected[0])


def test_the_order_is_of_the_seed_and_of_the_epoch():
    orders = [
        tuple(epoch_order(50, seed, epoch).tolist())
        for seed in (0, 1, 2**32, 2**40)
        for epoch in range(4)
    ]
    assert len(set(orders)) == len(orders)
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_images_in_memory_and_decoded_ones_come_in_the_same_order():
    memory, decoded = Batches(in_memory(20), 4, 7), Batches(Numbered(20), 4, 7)
    assert all(torch.equal(memory.batch_at(step), decoded.batch_at(step)) for step in range(9))


# workers


def test_workers_read_ahead_of_the_step_and_end_with_it():
    images = Numbered(40)
    batches = Batches(images, 4, 0, workers=2).start()
    first = next(batches)
    assert numbers(first) == numbers(Batches(images, 4, 0).batch_at(0))
    batches.close()
    readers = images.readers - {threading.current_thread()}
    assert readers
    assert not any(reader.is_alive() for reader in readers)


def test_images_in_memory_are_indexed_where_they_are_asked_for():
    before = threading.active_count()
    batches = Batches(in_memory(40), 4, 0, workers=2).start()
    next(batches)
    assert threading.active_count() == before


def test_an_error_of_a_worker_reaches_the_step():
    images = Numbered(8, corrupt=range(8))
    with pytest.raises(ValueError, match="none of 8 images of numbered can be read"):
        next(Batches(images, 2, 0, workers=2).start())


# corrupt images


@given(
    batch=UP_TO,
    world=strategies.integers(1, 3),
    corrupt=strategies.sets(strategies.integers(0, 39), max_size=20),
    step=strategies.integers(0, 30),
)
@settings(deadline=None)
def test_readable_images_stand_in_for_corrupt_ones(batch, world, corrupt, step):
    """First those of its own that can be read, then others; alone, there is one for every place.

    Of several devices each has its own to choose from, which may be too few.
    """
    images = Numbered(40, corrupt)
    devices = [Batches(images, batch, 5, rank, world) for rank in range(world)]
    shares = [numbers(device.batch_at(step)) for device in devices]
    whole = numbers(Batches(in_memory(40), batch * world, 5).batch_at(step))
    for rank, (device, share) in enumerate(zip(devices, shares, strict=True)):
        own = whole[rank * batch :][:batch]
        assert len(share) == batch
        assert not corrupt & set(share)
        readable = [index for index in own if index not in corrupt]
        assert share[: len(readable)] == readable
        assert {f"image {index}" for index in own if index in corrupt} <= set(device.skipped)
    if world == 1:
        assert len(set(shares[0])) == batch


@given(corrupt=strategies.sets(strategies.integers(0, 23), max_size=6))
@settings(deadline=None)
def test_no_two_devices_take_the_same_stand_in(corrupt):
    """Each of 3 devices has 7 of the 21 images beyond the batch for its own: enough for 2 of 6."""
    images = Numbered(27, corrupt)
    shares = [Batches(images, 2, 5, rank, 3).batch_at(0) for rank in range(3)]
    assert len(set(numbers(torch.cat(shares)))) == 6


def test_skipped_names_come_with_the_batches_and_each_once():
    images = Numbered(12, corrupt={0, 1, 2})
    batches = Batches(images, 3, 0, workers=2)
    assert batches.skipped == []
    ahead = batches.start()
    for _ in range(2 * batches.steps_per_epoch):
        next(ahead)
    ahead.close()
    assert sorted(batches.skipped) == ["image 0", "image 1", "image 2"]
    alone = Batches(images, 3, 0)
    alone.batch_at(0)
    begun = Batches(images, 3, 0, workers=2)
    next(begun.start())
    assert begun.skipped == alone.skipped  # what was read ahead is not counted yet


def test_the_last_readable_image_fills_the_batch():
    assert numbers(Batches(Numbered(6, {0, 1, 2, 4, 5}), 4, 0).batch_at(9)) == [3] * 4


def test_no_readable_image_is_an_error():
    with pytest.raises(ValueError, match=r"none of 5 images .* can be read, the first image \d"):
        Batches(Numbered(5, range(5)), 2, 0).batch_at(0)


def test_a_folder_with_a_truncated_jpeg_gives_whole_batches(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            colour = (40 * number, 0, 200 * (name == "b"))
            Image.new("RGB", (40, 30), colour).save(tmp_path / name / f"{number}.jpg")
    broken = tmp_path / "b/1.jpg"
    broken.write_bytes(broken.read_bytes()[:-80])
    batches = Batches(open_images(f"imagefolder:{tmp_path}", 8), 2, 0, workers=2)
    ahead = batches.start()
    first = [next(ahead) for _ in range(batches.steps_per_epoch)]
    ahead.close()
    assert all(batch.shape == (2, 3, 8, 8) for batch in first)
    assert batches.skipped == [str(broken)] == batches.images.skipped
    assert all(torch.equal(batches.batch_at(step), batch) for step, batch in enumerate(first))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"batch": 11}, "a batch of 11 needs 11 images and numbered has 10; lower the batch"),
        ({"batch": 6, "world": 2}, "a batch of 6 on each of 2 devices needs 12 images"),
        ({"world": 0}, "world must be at least 1"),
        ({"world": 2, "rank": 2}, "rank must be from 0 to 1, got 2"),
        ({"rank": -1}, "rank must be from 0 to 0, got -1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_numbers_that_make_no_batch_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Batches(Numbered(10), **{"batch": 2, "seed": 0, **arguments})
