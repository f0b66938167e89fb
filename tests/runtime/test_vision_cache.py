"""Embeddings are computed once and never mistaken, whatever happens to the files."""

import dataclasses
import logging
import multiprocessing
import os
import resource
import signal
import time

import numpy as np
import pytest
from bundle_specs import make_spec
from image_settings import pixels

import edge_mllm
from edge_mllm.errors import SettingError
from edge_mllm.machine.memory import peak_rss_bytes
from edge_mllm.picture.tile_plan import fit_tiler
from edge_mllm.tower.cache import VisionCache, picture_digest, tower_digest
from edge_mllm.tower.store import EmbeddingStore

QUESTION = "What is the total?"


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def rows(seed: int, tokens: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "cache")


def only_file(store):
    (path,) = store.directory.iterdir()
    return path


def test_memory_keeps_its_bound_and_the_latest_used():
    cache = VisionCache(max_bytes=3 * 6 * 8 * 4)
    for number in range(3):
        cache.put(key(number), rows(number))
    assert cache.get(key(0), (6, 8))[1] == "memory"
    cache.put(key(3), rows(3))
    assert cache.get(key(1), (6, 8)) is None
    assert np.array_equal(cache.get(key(0), (6, 8))[0], rows(0))
    cache.put(key(4), rows(4, tokens=1000))
    assert cache.get(key(4), (1000, 8)) is None
    cache.put(key(0), rows(9))
    assert np.array_equal(cache.get(key(0), (6, 8))[0], rows(9))
    assert cache.nbytes == len(cache) * 6 * 8 * 4 <= cache.max_bytes


def test_entries_cannot_be_changed():
    cache = VisionCache()
    cache.put(key(0), rows(0))
    found, _ = cache.get(key(0), (6, 8))
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1
    assert cache.get(key(0), (6, 9)) is None


def test_disk_gives_the_same_bits(store):
    store.put(key(0), rows(0))
    assert np.array_equal(EmbeddingStore(store.directory).get(key(0), (6, 8)), rows(0))
    assert store.get(key(1), (6, 8)) is None
    cache = VisionCache(store=store)
    assert cache.get(key(0), (6, 8))[1] == "disk"
    assert cache.get(key(0), (6, 8))[1] == "memory"


@pytest.mark.parametrize("damage", ["truncated", "longer", "flipped", "header", "empty", "foreign", "other key", "nan"])
def test_damaged_files_are_ignored_and_removed(store, damage, caplog):
    store.put(key(0), rows(0))
    path = only_file(store)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        del data[-5:]
    elif damage == "longer":
        data += b"x"
    elif damage == "flipped":
        data[-40] ^= 1
    elif damage == "header":
        data[0] ^= 1
    elif damage == "empty":
        data.clear()
    elif damage == "foreign":
        data = bytearray(os.urandom(len(data)))
    elif damage == "other key":
        store.put(key(1), rows(1))
        data = bytearray(store._path(key(1)).read_bytes())
    else:
        store.put(key(0), np.full((6, 8), np.nan, np.float32))
        data = bytearray(path.read_bytes())
    path.write_bytes(data)
    assert store.get(key(0), (6, 8)) is None
    assert not path.exists()
    assert "damaged" in caplog.text
    store.put(key(0), rows(0))
    assert np.array_equal(store.get(key(0), (6, 8)), rows(0))


def test_every_single_flipped_byte_is_noticed(store):
    store.put(key(0), rows(0, tokens=1, width=2))
    whole = only_file(store).read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 0x10
        store._path(key(0)).write_bytes(data)
        assert store.get(key(0), (1, 2)) is None


def test_disk_keeps_its_bound_and_strangers(tmp_path):
    size = 88 - 8 + 6 * 8 * 4
    store = EmbeddingStore(tmp_path, max_bytes=3 * size)
    (tmp_path / "letter.txt").write_text("mine")
    (tmp_path / "vision-notes.emb").write_text("mine")
    for number in range(10):
        store.put(key(number), rows(number))
        os.utime(store._path(key(number)), ns=(number, number))
        kept = [path for path in tmp_path.iterdir() if len(path.name) > 40]
        assert sum(path.stat().st_size for path in kept) <= store.max_bytes
    assert store.get(key(9), (6, 8)) is not None
    assert store.get(key(0), (6, 8)) is None
    assert (tmp_path / "letter.txt").read_text() == (tmp_path / "vision-notes.emb").read_text() == "mine"


def test_leftovers_of_killed_processes_go_after_an_hour(store):
    old, new = store.directory / ".vision-old", store.directory / ".vision-new"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    store.put(key(0), rows(0))
    assert not old.exists()
    assert new.exists()


def _writer(directory, seed, failures):
    store = EmbeddingStore(directory, max_bytes=40 * 6000)
    draw = np.random.default_rng(seed)
    for _ in range(300):
        number = int(draw.integers(0, 20))
        if draw.integers(2):
            store.put(key(number), rows(number, tokens=100, width=15))
        else:
            found = store.get(key(number), (100, 15))
            if found is not None and not np.array_equal(found, rows(number, tokens=100, width=15)):
                failures.put(number)


def test_two_processes_write_at_once(store):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    workers = [context.Process(target=_writer, args=(store.directory, seed, failures)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert failures.empty()
    assert not list(store.directory.glob(".vision-*"))
    found = [store.get(key(number), (100, 15)) for number in range(20)]
    assert sum(each is not None for each in found) > 5


def test_killed_writer_leaves_no_half_entry(store):
    context = multiprocessing.get_context("fork")
    for delay in (0.01, 0.03, 0.05):
        worker = context.Process(target=_writer, args=(store.directory, 1, context.Queue()))
        worker.start()
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10)
    for number in range(20):
        found = store.get(key(number), (100, 15))
        assert found is None or np.array_equal(found, rows(number, tokens=100, width=15))


def test_full_disk_is_one_warning(store, caplog):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for number in range(3):
            store.put(key(number), rows(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cannot write" in warnings[0].getMessage()
    assert list(store.directory.iterdir()) == []
    assert store.get(key(0), (6, 8)) is None


def test_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingError, match="cache directory"):
            EmbeddingStore(bad)
    with pytest.raises(SettingError):
        EmbeddingStore(tmp_path / "x", max_bytes=-1)
    with pytest.raises(SettingError):
        VisionCache(max_bytes=-1)


def test_directory_removed_while_in_use(store, caplog):
    store.directory.rmdir()
    store.put(key(0), rows(0))
    assert store.get(key(0), (6, 8)) is None
    assert "cannot write" in caplog.text


def test_digest_tells_pictures_and_processing_apart(tiny_smolvlm):
    spec = make_spec(tiny_smolvlm)
    image, vision = spec.image, spec.vision
    tiler = image.tiler
    base = picture_digest(pixels(0), image, vision, tiler)
    assert base == picture_digest(pixels(0).copy(), image, vision, tiler)
    other = [
        picture_digest(pixels(1), image, vision, tiler),
        picture_digest(pixels(0).reshape(90, 60, 3), image, vision, tiler),
        picture_digest(pixels(0), image, vision, fit_tiler(tiler, 90, 60, 1)),
        picture_digest(pixels(0), dataclasses.replace(image, resample="nearest"), vision, tiler),
        picture_digest(pixels(0), dataclasses.replace(image, mean=(0.0, 0.0, 0.0)), vision, tiler),
    ]
    assert len({base, *other}) == 6


def test_digest_tells_towers_apart(tiny_bundle):
    from edge_mllm.session.files import open_bundle

    spec = open_bundle(tiny_bundle, check_hashes=False).spec
    part = spec.parts["vision"]
    changed = [
        dataclasses.replace(spec, parts={**spec.parts, "vision": dataclasses.replace(part, **change)})
        for change in ({"sha256": "0" * 64}, {"precision": "int8"})
    ]
    assert len({tower_digest(each) for each in (spec, *changed)}) == 3


def test_answers_say_where_the_embeddings_came_from(loading, tmp_path):
    def ask(model, picture):
        answer = model.generate(QUESTION, [picture], max_new_tokens=6)
        return answer.text, answer.images[0].source

    with loading(cache_dir=tmp_path) as model:
        text, source = ask(model, pixels(0))
        assert source == "tower"
        assert ask(model, pixels(0)) == (text, "kv")
        assert ask(model, pixels(1))[1] == "tower"
        assert ask(model, pixels(0)) == (text, "memory")
    with loading(cache_dir=tmp_path) as model:
        answer = model.generate(QUESTION, [pixels(0)], max_new_tokens=6)
        assert (answer.text, answer.images[0].source, answer.timings.vision_s) == (text, "disk", 0)
        assert not model._tower.loaded
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-4])
    with loading(cache_dir=tmp_path) as model:
        assert ask(model, pixels(0)) == (text, "tower")
    with loading(cache_bytes=0) as model:
        ask(model, pixels(0))
        ask(model, pixels(1))
        assert ask(model, pixels(0)) == (text, "tower")


def test_file_that_changes_under_its_name_is_another_picture(loading, tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    with loading(cache_dir=tmp_path / "cache") as model, loading() as other:
        for seed in (0, 1):
            Image.fromarray(pixels(seed)).save(path)
            answer = model.generate(QUESTION, [path], max_new_tokens=6)
            assert answer.images[0].source == "tower"
            assert answer.text == other.generate(QUESTION, [pixels(seed)], max_new_tokens=6).text


def test_five_hundred_pictures_in_a_row(tiny_bundle, tmp_path):
    bound, disk = 40_000, 100_000
    with edge_mllm.load(tiny_bundle, engine="onnx", threads=1, check_hashes=False, cache_bytes=bound) as model:
        cache = model._encoder.cache
        cache._store = EmbeddingStore(tmp_path, max_bytes=disk)
        middle = 0
        for seed in range(500):
            answer = model.generate("Hi", [pixels(seed)], max_new_tokens=1, detail="low")
            assert answer.images[0].source == "tower"
            assert answer.images[0].reduced
            assert cache.nbytes <= bound
            if seed == 250:
                middle = peak_rss_bytes()
        growth = peak_rss_bytes() - middle
        assert growth < 16_000_000, growth
        assert 20 < len(cache) < 500
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= disk
