"""A loaded model: the stages joined, from pictures and a prompt to an answer that says what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from edge_mllm.answer import Answer, Piece, last_answer
from edge_mllm.answer_plan import AnswerPlan
from edge_mllm.budget import Detail, ImageBudget, image_budget
from edge_mllm.bundle import BundleSpec
from edge_mllm.components import Components, Opening, open_components
from edge_mllm.decoders.protocol import FloatArray
from edge_mllm.decoders.settings import DecoderSettings, KVType
from edge_mllm.embedding_store import EmbeddingStore
from edge_mllm.errors import EngineError, ModelNotFoundError
from edge_mllm.image import Picture, load_rgb
from edge_mllm.large_pages import collapse_resident
from edge_mllm.limits import Limits
from edge_mllm.pipeline import Conversation, Pipeline
from edge_mllm.preparation import Preparation, Preparations
from edge_mllm.reduction.spec import TokenReduction
from edge_mllm.request import Request, question_messages, user_message
from edge_mllm.sampling import SamplingOptions
from edge_mllm.threads import default_threads
from edge_mllm.tiling import Preprocessed, cut_tiles
from edge_mllm.timings import Stopwatch
from edge_mllm.tower_session import TowerEngine
from edge_mllm.vision_cache import DEFAULT_BYTES, VisionCache

if TYPE_CHECKING:
    from edge_mllm.chat import Chat


def load(  # noqa: PLR0913  (every option by its own name)
    path: str | Path | None = None,
    *,
    engine: str | None = None,
    threads: int | None = None,
    n_ctx: int | None = None,
    kv_type: KVType | None = None,
    flash_attention: bool | None = None,
    check_hashes: bool = True,
    cache_dir: str | Path | None = None,
    cache_bytes: int = DEFAULT_BYTES,
    low_memory: bool = False,
    precision: str | None = None,
    mmproj: str | Path | None = None,
    chunk: int | None = None,
    vision_engine: TowerEngine = "ort",
    tile_batch: int = 1,
    max_memory: int | None = None,
    prompt_weights: bool = True,
) -> Model:
    """Load a model.

    Args:
        path: A bundle, a directory of published ONNX files, or a GGUF file; None is the starter bundle that ships.
        engine: ``onnx`` or ``gguf``; None takes the bundle's first whose library is installed.
        threads: Threads of tower and decoder; None takes the fast physical cores this process may use.
        n_ctx: Most tokens of prompt and answer together; None is the model's own limit. Memory grows as needed.
        kv_type: Precision of the decoder's cache: ``f32``, ``f16`` or ``q8_0``; None is the engine's default.
        flash_attention: Only for ``gguf``; None lets llama.cpp choose.
        check_hashes: Compare every file that the engine uses with its SHA-256 in bundle.json.
        cache_dir: Where visual embeddings are also kept on disk, for later processes; None keeps them in memory only.
        cache_bytes: Most bytes of visual embeddings in memory; 0 keeps none.
        low_memory: Free the tower after every answer's pictures, and load the decoder after the first ones.
        precision: Files of a published directory, see :func:`edge_mllm.published.files.choose_files`.
        mmproj: The vision tower that goes with a GGUF file; without it the file answers about text alone.
        chunk: Prompt tokens computed at once; None is 512. 4-bit kernels give slightly different logits for others.
        vision_engine: What runs a bundle's tower, see :mod:`edge_mllm.tower_session`.
        tile_batch: Tiles that a bundle's tower takes at once, see :class:`edge_mllm.vision.VisionTower`.
        max_memory: Refuse a bundle whose decoder alone has more bytes, before loading it; see :meth:`Model.generate`.
        prompt_weights: Compute long prompts with a bundle's prompt weights, where it has them (engine ``onnx``).

    Raises:
        ModelNotFoundError: There is no bundle at ``path``.
        BundleError: The bundle is damaged.
        EngineError: The bundle has no decoder for the engine, or the engine refuses it.
        ExtraMissingError: The engine is not installed.
        SettingError: A number is outside its range.
    """
    start = time.perf_counter()
    settings = _settings(threads, chunk, prompt_weights, n_ctx=n_ctx, kv_type=kv_type, flash_attention=flash_attention)
    cache = VisionCache(max_bytes=cache_bytes, store=None if cache_dir is None else EmbeddingStore(Path(cache_dir)))
    chosen: dict[str, Any] = {"engine": engine, "precision": precision, "low_memory": low_memory}
    chosen |= {"check_hashes": check_hashes, "max_memory": max_memory, "vision_engine": vision_engine}
    chosen |= {"tile_batch": tile_batch, "mmproj": None if mmproj is None else Path(mmproj)}
    opening = Opening(path=starter_bundle() if path is None else Path(path), settings=settings, cache=cache, **chosen)
    return Model(open_components(opening), threads=settings.threads, load_s=time.perf_counter() - start)


def _settings(threads: int | None, chunk: int | None, prompt_weights: bool, **asked: Any) -> DecoderSettings:
    """The machine's number of threads and the usual chunk where None is given."""
    asked["threads"] = default_threads() if threads is None else threads
    asked["prompt_weights"] = "keep" if prompt_weights else "off"
    return DecoderSettings(chunk=DecoderSettings.chunk if chunk is None else chunk, **asked)


def starter_bundle() -> Path:
    """The bundle that ships in the wheel, or lies in the checkout.

    Raises:
        ModelNotFoundError: This installation has none.
    """
    package = Path(__file__).parent
    places = (package / "starter.edge", package.parent / "starter" / "starter.edge")
    for place in places:
        if place.is_dir():
            return place
    raise ModelNotFoundError(places[0], "this installation has no starter bundle; give a model")


class Model:
    """A tower and a decoder, ready to answer. One answer at a time; not for use from several threads at once."""

    def __init__(self, parts: Components, *, threads: int, load_s: float = 0.0) -> None:
        """Join the pieces; the tower is loaded when the first picture needs it.

        Args:
            parts: Of one model.
            threads: Of tower and decoder.
            load_s: What loading took so far.
        """
        self._parts = parts
        self.path, self.engine, self.threads = parts.path, parts.engine, threads
        self.reader, self.decoder = parts.reader, parts.decoder
        self._tower, self._encoder = parts.tower, parts.encoder
        self._preparations = Preparations(parts.encoder, parts.reader)
        self.pipeline = Pipeline(parts)
        self._load_s = load_s

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.reader.name

    @property
    def spec(self) -> BundleSpec:
        """How the model reads pictures and prompts.

        Raises:
            EngineError: The layout of the model's files does not say.
        """
        if self._parts.spec is None:
            raise EngineError(f"'{self.name}' is no bundle: how its pictures are cut is known to its engine alone")
        return self._parts.spec

    def generate(  # noqa: PLR0913  (the front door: every option by its own name)
        self,
        prompt: str,
        images: Sequence[Picture] = (),
        *,
        max_new_tokens: int = 256,
        sampling: SamplingOptions | None = None,
        stop: Sequence[str] = (),
        system: str | None = None,
        detail: Detail = "auto",
        max_image_tokens: int | None = None,
        max_memory: int | None = None,
        max_ttft: float | None = None,
        reduction: TokenReduction | str | None = None,
        ignore_eos: bool = False,
        json_schema: str | None = None,
        prompt_lookup: int = 0,
    ) -> Answer:
        """Answer one prompt.

        Args:
            prompt: What the user says.
            images: Pictures that go before it: paths, bytes, PIL images or uint8 arrays [height, width, 3].
            max_new_tokens: Most tokens of the answer; the context's end comes first where it is nearer.
            sampling: How tokens are chosen; None is greedy.
            stop: Texts that end the answer; they are not part of it.
            system: A system message.
            detail: How finely pictures are tiled, see :class:`edge_mllm.budget.ImageBudget`.
            max_image_tokens: Most visual tokens of all pictures together.
            max_memory: Most resident bytes. With detail ``auto`` pictures are tiled more coarsely for it, or refused.
            max_ttft: Most seconds to the first token, loading apart. Unknown speeds are measured first, which counts.
            reduction: Fewer visual tokens, as ``diverse:1/4``, see :class:`edge_mllm.reduction.spec.TokenReduction`.
            ignore_eos: Do not end at the model's stop tokens; for measurements that need a fixed length.
            json_schema: JSON Schema as text that the answer is held to; it is valid unless ``max_new_tokens`` cut it.
            prompt_lookup: Most tokens guessed at a time where answers copy (:mod:`edge_mllm.prompt_lookup`); 0 is off.

        Raises:
            ImageError: A picture cannot be used.
            ContextOverflowError: Prompt and pictures do not fit; found before anything is encoded.
            LimitError: The answer would break ``max_memory`` or ``max_ttft``.
            PromptError: The model's template refuses the messages.
            SchemaError: The answer cannot be held to the JSON schema.
            SettingError: An option is outside its range.
        """
        cut: dict[str, Any] = {"detail": detail, "max_image_tokens": max_image_tokens, "reduction": reduction}
        pieces = self.stream(
            prompt,
            images,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            system=system,
            **cut,
            max_memory=max_memory,
            max_ttft=max_ttft,
            ignore_eos=ignore_eos,
            json_schema=json_schema,
            prompt_lookup=prompt_lookup,
        )
        return last_answer(pieces)

    def stream(  # noqa: PLR0913  (as generate)
        self,
        prompt: str,
        images: Sequence[Picture] = (),
        *,
        max_new_tokens: int = 256,
        sampling: SamplingOptions | None = None,
        stop: Sequence[str] = (),
        system: str | None = None,
        detail: Detail = "auto",
        max_image_tokens: int | None = None,
        max_memory: int | None = None,
        max_ttft: float | None = None,
        reduction: TokenReduction | str | None = None,
        ignore_eos: bool = False,
        json_schema: str | None = None,
        prompt_lookup: int = 0,
    ) -> Iterator[Piece]:
        """As :meth:`generate`, piece by piece; the last piece carries the whole answer."""
        request = Request(
            max_new_tokens=max_new_tokens,
            sampling=sampling or SamplingOptions(),
            stop=tuple(stop),
            budget=image_budget(detail, max_image_tokens, reduction),
            limits=Limits(max_memory=max_memory, max_ttft_s=max_ttft),
            ignore_eos=ignore_eos,
            json_schema=json_schema,
            prompt_lookup=prompt_lookup,
        )
        return self.respond(prompt, images, request, system=system)

    def respond(
        self, prompt: str, images: Sequence[Picture], request: Request, *, system: str | None = None
    ) -> Iterator[Piece]:
        """As :meth:`stream`, with all that is asked beside the messages in one value."""
        messages = question_messages(prompt, len(images), system)
        watch = self.start_watch()
        parts = self.pipeline.pictures(images, Conversation(messages, ()), request, watch, keep_any=False)
        return self.pipeline.respond(Conversation(messages, parts), request, watch)

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation that remembers its turns."""
        from edge_mllm.chat import Chat

        return Chat(self, system=system)

    def plan(  # noqa: PLR0913  (as generate)
        self,
        prompt: str,
        images: Sequence[Picture] = (),
        *,
        max_new_tokens: int = 256,
        system: str | None = None,
        detail: Detail = "auto",
        max_image_tokens: int | None = None,
        max_memory: int | None = None,
        max_ttft: float | None = None,
        reduction: TokenReduction | str | None = None,
    ) -> AnswerPlan:
        """What :meth:`generate` with the same arguments will take: tiles, tokens, bytes, and seconds where known.

        Limits that cannot be kept are no error here: the plan shows the coarsest tiling and what it takes.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The image budget cannot be kept, or the model's template refuses the messages.
        """
        request = Request(
            max_new_tokens=max_new_tokens,
            budget=image_budget(detail, max_image_tokens, reduction),
            limits=Limits(max_memory=max_memory, max_ttft_s=max_ttft),
        )
        messages, watch = question_messages(prompt, len(images), system), self.start_watch()
        parts = self.pipeline.pictures(images, Conversation(messages, ()), request, watch, keep_any=False)
        return self.pipeline.plan(Conversation(messages, parts), max_new_tokens)

    def load_chat(self, path: str | Path) -> Chat:
        """Go on with a conversation that :meth:`edge_mllm.chat.Chat.save` wrote, without computing it again.

        Raises:
            ChatFileError: There is no such file, it is damaged, or it was saved with another bundle, engine or setting.
        """
        from edge_mllm.chat import Chat

        return Chat.load(self, path)

    def binding(self) -> dict[str, str]:
        """What the bits of the decoder's cache depend on: bundle, engine, its version, settings, machine."""
        return self._parts.binding()

    def prepare(
        self,
        *images: Picture,
        detail: Detail = "auto",
        max_image_tokens: int | None = None,
        reduction: TokenReduction | str | None = None,
    ) -> Preparation:
        """Start encoding pictures in the background, for example while the user types.

        The next answers about them, with the same ``detail``, ``max_image_tokens`` and ``reduction``, use what was made
        or wait for it. What is wrong with a picture is raised where it is used. :meth:`close` stops what still runs.

        Raises:
            SettingError: An option is outside its range.
        """
        return self._preparations.start(images, image_budget(detail, max_image_tokens, reduction))

    def use_large_pages(self) -> Preparation:
        """Start moving what is in memory now into large pages, in the background; answers may come meanwhile.

        It takes about 0.4 s for 300 MB and adds no memory. Worth it where many tokens follow; see
        :mod:`edge_mllm.large_pages`. Nothing happens where the system cannot do it.
        """
        self.pipeline.tells_large_pages = True

        def work(preparation: Preparation) -> None:
            collapse_resident(preparation.check)

        return self._preparations.run(work)

    def preprocess(self, picture: Picture) -> Preprocessed:
        """What the tower gets: ``.pixels`` [tiles, 3, height, width] or packed patches, ``.grid``, ``.tokens``."""
        return cut_tiles(load_rgb(picture), self.spec.image, self.spec.vision)

    def encode(self, picture: Picture) -> FloatArray:
        """Visual embeddings float32 [tokens, n_embd], as the decoder takes them."""
        (part,) = self.reader.pictures([picture], ImageBudget())
        return part.joined(self._tower.encode(part.tower_input(), token_grid=part.token_grid))

    def prompt_ids(self, prompt: str, images: Sequence[Picture] = ()) -> npt.NDArray[np.int64]:
        """Token ids int64 [n] of a prompt with pictures, the image token repeated once per visual token."""
        parts = self.reader.pictures(images, ImageBudget())
        return self.pipeline.prompt(Conversation([user_message(prompt, len(images))], parts)).ids

    def load_tower(self) -> None:
        """Load the vision tower now instead of with the first picture."""
        self._tower.load()

    def start_watch(self) -> Stopwatch:
        """A stopwatch for an answer that begins now and knows what loading took."""
        return Stopwatch(self._load_s)

    def close(self) -> None:
        """Free native memory; the model is unusable afterwards."""
        self._preparations.close()
        self._encoder.close()
        self.decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
