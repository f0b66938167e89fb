"""Arrays of a bundle: whatever numpy's reader makes of a damaged header is one line of the package's own."""

import random

import numpy as np
import pytest

from edge_mllm.bundle.npy import read_array
from edge_mllm.errors import BundleError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("arrays") / "embeddings.npy"
    np.save(file, np.arange(12, dtype=np.float16).reshape(4, 3))
    return file.read_bytes()


@pytest.mark.parametrize("mapped", [False, True])
def test_mutated_headers(tmp_path, whole, mapped):
    rng, file, refused = random.Random(3), tmp_path / "embeddings.npy", 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2))):
            data[rng.randrange(80)] = rng.choice((*b"()[]{}'\",: \n\\#0L", rng.randrange(256)))
        file.write_bytes(data)
        try:
            assert isinstance(read_array(file, "the embedding table", mapped=mapped), np.ndarray)
        except BundleError as error:
            refused += 1
            assert "the embedding table in embeddings.npy cannot be read (" in str(error)
    assert 200 < refused < 400


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04]q\x00.", b"x" * 500])
def test_what_is_no_array(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(BundleError, match="cannot be read"):
        read_array(tmp_path / "a.npy", "the table")


def test_an_archive_and_objects_are_refused(tmp_path):
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    with pytest.raises(BundleError, match=r"it is no \.npy file"):
        read_array(tmp_path / "b.npy", "the table")
    np.save(tmp_path / "c.npy", np.array([{}], object))
    with pytest.raises(BundleError, match="cannot be read"):
        read_array(tmp_path / "c.npy", "the table")
