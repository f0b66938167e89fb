"""Nodes of an ONNX graph, those of branches too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def with_branches(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Each node, followed by the nodes of its branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from with_branches(attribute.g.node)
