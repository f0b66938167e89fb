"""The pieces a loaded model is made of, whatever layout its files have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.answer.answer import StageDevice
from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.readers.reader import Reader
from edge_mllm.bundle.spec import BundleSpec, Engine
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError
from edge_mllm.tower.placement import CPU, Placement
from edge_mllm.tower.protocol import Tower


@dataclass(frozen=True, kw_only=True)
class Components:
    """One model's."""

    path: Path
    engine: Engine
    spec: BundleSpec | None
    """None for a layout that does not say how pictures are cut."""
    reader: Reader
    tower: Tower
    encoder: PictureEncoder
    decoder: Decoder
    settings: DecoderSettings
    placed: Callable[[], Placement] = Placement
    """Tells where the tower of a bundle runs, which may be known with the first picture alone."""
    binding: Callable[[], dict[str, str]]
    """What the bits of the decoder's cache depend on."""

    @property
    def place(self) -> Placement:
        """Where the tower of a bundle runs now."""
        return self.placed()

    @property
    def devices(self) -> dict[str, StageDevice]:
        """Stage -> what runs it."""
        decoder = StageDevice(provider="cpu", device=CPU)
        place = self.place
        vision = StageDevice(provider=place.provider, device=place.device)
        return {"vision": vision, "prefill": decoder, "decode": decoder}

    @property
    def known_spec(self) -> BundleSpec:
        """How the model reads pictures and prompts.

        Raises:
            EngineError: The layout of the model's files does not say.
        """
        if self.spec is None:
            raise EngineError(
                f"'{self.reader.name}' is no bundle: how its pictures are cut is known to its engine alone"
            )
        return self.spec
