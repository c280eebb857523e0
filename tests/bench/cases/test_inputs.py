"""Inputs: reproducible, correlated where real, and a user's own file or a clear error."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import file_facts, identity, make_inputs


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 4, generator=generator) for _ in "ab"]


def test_random_inputs_repeat_and_views_differ():
    first, second = (make_inputs(Case("smi", batch=50, dim=30)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(*first)
    assert abs(first[0].mean()) < 0.1
    assert abs(first[0].std() - 1) < 0.1


@pytest.mark.parametrize("kind", ["random", "aligned", "collapsed"])
@pytest.mark.parametrize(("batch", "dim"), [(256, 8192), (8192, 512)])
def test_no_feature_lies_where_the_gradient_of_vicreg_jumps(kind, batch, dim):
    """At a deviation of 1; where rounding decides, a right gradient can seem wrong."""
    for view in make_inputs(Case("vicreg", batch=batch, dim=dim, inputs=kind)):
        deviation = (view.double().var(dim=0) + losses.spec("vicreg").configure().eps).sqrt()
        assert (deviation - 1).abs().min() > 1e-3
        if kind != "collapsed":  # and both sides are tested
            assert deviation.min() < 1 < deviation.max()


def test_inputs_of_another_kind_of_device_are_known_to_be_others():
    """A GPU draws other numbers from the same seed; digits and files are read on the CPU."""
    assert identity("random", "cpu") != identity("random", "cuda")
    assert identity("digits", "cpu") == identity("digits", "cuda")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_inputs_have_the_dtype_and_shape_asked_for(dtype):
    case = Case("smi", batch=3, dim=5, dtype=dtype, world=4, distribution="gather")
    z_a, z_b = make_inputs(case)
    assert z_a.dtype == z_b.dtype == getattr(torch, dtype)
    assert z_a.shape == z_b.shape == (12, 5)


def test_digits_pair_up_more_than_strangers_do():
    z_a, z_b = make_inputs(Case("smi", batch=200, dim=64, inputs="digits"))
    correlation = torch.corrcoef(torch.cat([z_a, z_b]))[:200, 200:]
    partners = correlation.diagonal().mean()
    strangers = (correlation.sum() - correlation.diagonal().sum()) / (200 * 199)
    assert partners > strangers + 0.1


def test_digits_repeat_with_other_augmentations_beyond_the_data_set():
    z_a, _ = make_inputs(Case("smi", batch=1797 + 2, dim=8, inputs="digits"))
    assert z_a.shape == (1799, 8)
    assert not torch.equal(z_a[0], z_a[1797])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_own_embeddings(tmp_path, views, suffix):
    path = tmp_path / f"z{suffix}"
    save(path, z_a=views[0], z_b=views[1])
    assert file_facts(str(path)) == (6, 4, "float32")
    read = make_inputs(Case("smi", batch=5, dim=4, inputs=f"file:{path}"))
    assert torch.equal(read[0], views[0][:5])
    assert torch.equal(read[1], views[1][:5])


def test_a_file_is_known_by_its_content(tmp_path, views):
    for name in ("one", "two"):
        save(tmp_path / f"{name}.npz", z_a=views[0], z_b=views[1])
    one, two = (identity(f"file:{tmp_path}/{name}.npz", "cpu") for name in ("one", "two"))
    assert one == two
    save(tmp_path / "two.npz", z_a=views[1], z_b=views[0])
    assert identity(f"file:{tmp_path}/two.npz", "cpu") != one


def test_only_the_two_views_are_read_in_any_byte_order(tmp_path, views):
    arrays = [view.numpy().astype(">f8") for view in views]
    labels = np.array(["cat", "dog"])
    metadata = np.array([{"model": "resnet"}], dtype=object)
    np.savez(tmp_path / "z.npz", z_a=arrays[0], z_b=arrays[1], labels=labels, metadata=metadata)
    source = f"file:{tmp_path}/z.npz"
    assert file_facts(f"{tmp_path}/z.npz") == (6, 4, "float64")
    read = make_inputs(Case("smi", batch=6, dim=4, inputs=source, dtype="float64"))
    assert torch.equal(read[0], views[0].double())


def test_values_beyond_the_dtype_are_refused(tmp_path, views):
    save(tmp_path / "z.npz", z_a=views[0].double() * 1e39, z_b=views[1].double())
    case = Case("smi", batch=6, dim=4, inputs=f"file:{tmp_path}/z.npz")
    with pytest.raises(ValueError, match="values too large for float32"):
        make_inputs(case)


def test_eight_bit_floats_are_refused(tmp_path, views):
    tiny = [view.to(torch.float8_e4m3fn) for view in views]
    save(tmp_path / "z.safetensors", z_a=tiny[0], z_b=tiny[1])
    with pytest.raises(ValueError, match=r"z_a must be one of .* got float8_e4m3fn"):
        file_facts(f"{tmp_path}/z.safetensors")


def test_nan_is_located(tmp_path, views):
    views[1][2, 3] = float("nan")
    views[1][4, 0] = float("inf")
    save(tmp_path / "nan.npz", z_a=views[0], z_b=views[1])
    with pytest.raises(ValueError, match=r"z_b holds 2 NaN .* the first at row 2, column 3"):
        file_facts(str(tmp_path / "nan.npz"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": torch.zeros(3, 2)}, "must hold arrays z_a and z_b; it holds x"),
        (
            {"z_a": torch.zeros(3, 2), "z_b": torch.zeros(3, 4)},
            r"same shape, got .*3, 2.* and .*3, 4",
        ),
        ({"z_a": torch.zeros(1, 2), "z_b": torch.zeros(1, 2)}, "N at least 2"),
        ({"z_a": torch.zeros(3), "z_b": torch.zeros(3)}, r"N x D .* got \(3,\)"),
        (
            {"z_a": torch.zeros(3, 2).int(), "z_b": torch.zeros(3, 2)},
            "z_a must be one of float64, .* got int32",
        ),
    ],
)
def test_files_that_are_not_two_views(tmp_path, arrays, message):
    save(tmp_path / "z.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        file_facts(str(tmp_path / "z.npz"))


def test_missing_damaged_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.npz: no such file"):
        file_facts(str(tmp_path / "nowhere.npz"))
    for name in ("damaged.npz", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"not an archive")
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            file_facts(str(tmp_path / name))
    (tmp_path / "z.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"must be an \.npz or \.safetensors file"):
        file_facts(str(tmp_path / "z.csv"))


def save(path, **arrays: torch.Tensor) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: view.numpy() for name, view in arrays.items()})
    else:
        save_file(arrays, path)
