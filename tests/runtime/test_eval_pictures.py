"""Pictures of a task are read by the one rule for everybody."""

import numpy as np
import pytest
from PIL import Image

from edge_mllm.errors import ImageError, ModelNotFoundError, TaskError
from edge_mllm.measure.eval.pictures import FilePicture, open_picture
from edge_mllm.measure.eval.readers import read_task
from edge_mllm.picture.image import load_rgb


def test_pictures_become_the_same_pixels_as_for_run(tmp_path):
    """Transparency on white, 16-bit grey by its high byte, and no format that starts another program."""
    clear = Image.new("RGBA", (4, 3), (10, 20, 30, 0))
    wide = Image.fromarray(np.full((3, 4), 0x4080, np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = {"clear.png": (clear, {}), "wide.png": (wide, {}), "turned.jpg": (clear.convert("RGB"), {"exif": exif})}
    for name, (picture, options) in saved.items():
        picture.save(tmp_path / name, **options)
        assert np.array_equal(np.asarray(open_picture(FilePicture(tmp_path / name))), load_rgb(tmp_path / name))
    assert np.asarray(open_picture(FilePicture(tmp_path / "clear.png"))).min() == 255
    assert np.asarray(open_picture(FilePicture(tmp_path / "wide.png"))).max() == 0x40
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(ImageError, match=r"page\.eps': it is not a picture in a format that can be read"):
        open_picture(FilePicture(tmp_path / "page.eps"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("set.json", b'[{"question": "\xff"}]'),
        ("set.jsonl", b"\xc3\x28"),
        ("set.json", b"[" * 100_000),
        ("set.csv", b"index,question\r1,a\rb,c\n"),
        ("set.parquet", b"PAR1" + b"\0" * 40 + b"PAR1"),
        ("set.tsv", b""),
    ],
)
def test_damaged_task_files_are_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TaskError) as caught:
        read_task(tmp_path / name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


def test_a_parquet_file_whose_pages_are_damaged(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "set.parquet"
    pq.write_table(pa.table({"question": ["What?"] * 50, "answer": ["x"] * 50, "image": [b"1" * 99] * 50}), file)
    data = bytearray(file.read_bytes())
    data[4:200] = b"\xff" * 196
    file.write_bytes(data)
    with pytest.raises(TaskError, match="its rows cannot be read"):
        read_task(file)


def test_messages_are_one_line_that_can_be_shown():
    """Whatever files and libraries put into them: line breaks, escape sequences, half characters, pages of base64."""
    error = TaskError("a\nb\x1b[31m\ud800.json", "x" * 10_000)
    assert str(error).startswith("cannot read the task 'a b?[31m?.json': xxx")
    assert len(str(error)) < 2000 and str(error).isprintable()
    assert str(ModelNotFoundError("a\nb")) == "no model at 'a b': no such file or directory"
