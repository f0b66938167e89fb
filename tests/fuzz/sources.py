"""What is mutated: whole small inputs of every kind, made once in a folder. Needs the export side."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

PICTURE = np.random.default_rng(5).integers(0, 256, (48, 64, 3), dtype=np.uint8)
SCHEMAS = (
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]},
    {"enum": ["yes", "no"]},
    {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,3}$"}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "number", "multipleOf": 0.5}}},
    {"name": "x", "schema": {"type": "string", "format": "date", "maxLength": 12}},
)


def make_sources(out: Path) -> Path:
    """Write everything below ``out``; done once."""
    if (out / "done").exists():
        return out
    _make_models(out)
    _make_pictures(out / "pictures")
    _make_tasks(out / "tasks")
    _make_kept(out)
    (out / "done").touch()
    return out


def _make_models(out: Path) -> None:
    from tiny_models import make_tiny_smolvlm
    from tiny_published import make_published

    from edge_mllm_export import ExportOptions, export_bundle
    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
    from edge_mllm_export.write.text_model import write_text_checkpoint
    from edge_mllm_export.write.vision.mmproj import write_mmproj

    source = make_tiny_smolvlm(out / "tiny-smolvlm")
    options = ExportOptions(format="both", quant="f32", vision="fp32", verify=False)
    export_bundle(str(source), out / "bundle", options)
    make_published(source, out / "published")
    checkpoint = open_checkpoint(source)
    (out / "pair").mkdir()
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
    write_decoder_gguf(text, out / "pair" / "model.gguf", "f16", name="tiny")
    write_mmproj(checkpoint, find_family(checkpoint), out / "pair" / "mmproj.gguf", "f16")


def _make_pictures(out: Path) -> None:
    out.mkdir()
    rgb = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "rgb.png": (rgb, {}), "rgba.png": (rgb.convert("RGBA"), {}), "bits.png": (rgb.convert("1"), {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}),
        "grey16.png": (Image.fromarray(PICTURE[:, :, 0].astype(np.uint16) * 257), {}),
        "base.jpg": (rgb, {"exif": exif}), "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}), "grey.jpg": (rgb.convert("L"), {}), "lossy.webp": (rgb, {}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True}), "moving.gif": (rgb, {"save_all": True,
        "append_images": [rgb.rotate(90)]}), "plain.bmp": (rgb, {}), "plain.tiff": (rgb, {}),
        "packed.tiff": (rgb, {"compression": "tiff_lzw"}), "float.tiff": (rgb.convert("F"), {}), "plain.ppm": (rgb, {}),
        "plain.ico": (rgb, {}), "plain.jp2": (rgb, {}), "plain.avif": (rgb, {}),
    }  # fmt: skip
    for name, (picture, options) in kinds.items():
        picture.save(out / name, **options)


def _make_tasks(out: Path) -> None:
    from eval_files import mme_rows, write_tsv

    out.mkdir()
    rows = mme_rows()
    write_tsv(out / "set.tsv", rows)
    write_tsv(out / "set.csv", rows)
    (out / "set.json").write_text(json.dumps(rows))
    (out / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, "PNG")
    columns = {name: [str(row[name]) for row in rows] for name in ("question", "answer", "category")}
    cells = [{"bytes": stream.getvalue(), "path": "a.png"} for _ in rows]
    pq.write_table(pa.table({**columns, "image": cells}), out / "set.parquet")


def _make_kept(out: Path) -> None:
    """Chats and embeddings as the bundle saves them."""
    import edge_mllm

    for engine in ("onnx", "gguf"):
        with edge_mllm.load(out / "bundle", engine=engine, threads=1, cache_dir=out / "cache") as model:
            chat = model.chat()
            chat.ask("What is this?", [PICTURE], max_new_tokens=4)
            chat.save(out / f"chat.{engine}")
