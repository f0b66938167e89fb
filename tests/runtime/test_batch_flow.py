"""Rows on their way to workers and back: order, pictures that go together, rows that end their workers."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from edge_mllm.batch.pool import _Flow
from edge_mllm.batch.rows import Row
from edge_mllm.measure.eval.pictures import FilePicture


def rows(*names: str) -> list[Row]:
    """A row for each name of a picture; none for an empty name."""
    return [
        Row(number=number, name=f"r{number}", pictures=(FilePicture(Path(name)),) if name else ())
        for number, name in enumerate(names, 1)
    ]


def test_rows_about_one_picture_go_together():
    flow = _Flow(iter(rows("a", "a", "b", "", "", "a", *9 * "c")), most=100)
    sizes = []
    while unit := flow.next():
        sizes.append([row.number for row in unit])
    assert sizes == [[1, 2], [3], [4], [5], [6], list(range(7, 15)), [15]]


def test_records_are_handed_on_in_order_and_no_more_than_so_many_wait():
    flow = _Flow(iter(rows("a", "b", "c", "d")), most=3)
    out = [flow.next()[0] for _ in range(3)]
    assert flow.next() == []
    for row in out[1:]:
        flow.done(row, {"n": row.number})
    assert list(flow.finished()) == [] and not flow.ended
    flow.done(out[0], {"n": 1})
    assert [record["n"] for _, record in flow.finished()] == [1, 2, 3]
    (last,) = flow.next()
    flow.done(last, {"n": 4})
    assert [record["n"] for _, record in flow.finished()] == [4] and flow.ended


def test_a_row_that_ends_two_workers_is_broken_and_the_others_go_out_again():
    flow = _Flow(iter(rows("a", "a", "b")), most=9)
    first, second = flow.next()
    flow.again(deque((first, second)), "was ended by SIGKILL")
    assert [flow.next(), flow.next()] == [[first], [second]]
    flow.again(deque((first,)), "was ended by SIGKILL")
    flow.done(second, {})
    found = dict((row.number, record) for row, record in flow.finished())
    assert found[1]["error"] == "its worker was ended by SIGKILL, twice" and found[2] == {}
    assert flow.next()[0].number == 3


def test_no_rows_are_no_work():
    assert _Flow(iter(()), most=4).ended
