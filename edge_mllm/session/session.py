"""A loaded model: the stages joined, from pictures and a prompt to an answer that says what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from edge_mllm.answer.answer import Answer, Piece, last_answer
from edge_mllm.answer.answer_plan import AnswerPlan
from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.components import Components
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.deciding.decider import Decider
from edge_mllm.answer.deciding.decision import Decision
from edge_mllm.answer.deciding.empty_answers import EmptyAnswers
from edge_mllm.answer.deciding.settings import DecideOptions, DecideSettings, checked_options, decide_settings
from edge_mllm.answer.messages import Pictures, Said, listed, said
from edge_mllm.answer.pictures.encoder import encoded_rows
from edge_mllm.answer.pipeline import Pipeline
from edge_mllm.answer.request import GenerateOptions, PictureOptions, Request, request_of
from edge_mllm.answer.turns import WhenBusy
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.machine.large_pages import collapse_resident
from edge_mllm.picture.image import Picture, load_rgb
from edge_mllm.picture.tiling import Preprocessed, cut_tiles
from edge_mllm.session.chat import Chat
from edge_mllm.session.preparation import Preparation, Preparations


class Model:
    """A tower and a decoder, ready to answer. One answer at a time: threads wait, see ``when_busy`` of `load`."""

    def __init__(self, parts: Components, *, threads: int, load_s: float = 0.0, when_busy: WhenBusy = "wait") -> None:
        """Join the pieces; the tower is loaded when the first picture needs it.

        Args:
            parts: Of one model.
            threads: Of tower and decoder.
            load_s: What loading took so far.
            when_busy: See :class:`edge_mllm.LoadOptions`.
        """
        self._parts = parts
        self.path, self.engine, self.threads = parts.path, parts.engine, threads
        self.reader, self.decoder = parts.reader, parts.decoder
        self._tower, self._encoder = parts.tower, parts.encoder
        self._preparations = Preparations(parts.encoder, parts.reader)
        self._empty = EmptyAnswers()
        self.pipeline = Pipeline(parts, when_busy, load_s=load_s)

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
        return self._parts.known_spec

    def generate(
        self,
        prompt: str | None = None,
        images: Pictures = (),
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Answer one prompt, or the last of several messages.

        Args:
            prompt: What the user says.
            images: A picture that goes before it, or several: paths, bytes, PIL images or uint8 arrays
                [height, width, 3].
            system: A system message.
            messages: In place of prompt and system: the whole conversation, with its pictures in their places, see
                :func:`edge_mllm.answer.messages.said`.
            options: See :class:`edge_mllm.GenerateOptions`.

        Raises:
            ImageError: A picture cannot be used.
            ContextOverflowError: Prompt and pictures do not fit; found before anything is encoded.
            LimitError: The answer would break ``max_memory`` or ``max_ttft``.
            PromptError: The messages have another form, or the model's template refuses them.
            SchemaError: The answer cannot be held to the JSON schema.
            SettingError: An option is outside its range or of another type.
        """
        return last_answer(self.stream(prompt, images, system=system, messages=messages, **options))

    def stream(
        self,
        prompt: str | None = None,
        images: Pictures = (),
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[Piece]:
        """As :meth:`generate`, piece by piece; the last piece carries the whole answer."""
        return self.respond(said(prompt, images, system, messages), request_of(**options))

    def respond(self, asked: Said, request: Request) -> Iterator[Piece]:
        """As :meth:`stream`, with what was said and the options as one value each."""
        watch, earlier = self.pipeline.start_watch(), Conversation(asked.messages, ())
        return self.pipeline.ask(asked.pictures, earlier, request, watch, keep_any=False)[1]

    def decide(
        self,
        prompt: str | None = None,
        options: Iterable[str] = (),
        images: Pictures = (),
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        **settings: Unpack[DecideOptions],
    ) -> Decision:
        """How likely each option is as the answer; nothing is decoded.

        Later questions about the same pictures compute only what is new, see :meth:`decide_each`.

        Args:
            prompt: What the user asks.
            options: The possible answers, two or more texts. White space around them is left out: the model's template
                writes what stands before an answer.
            images: As :meth:`generate` takes them.
            system: A system message.
            messages: In place of prompt and system, as :meth:`generate` takes them.
            settings: See :class:`edge_mllm.DecideOptions`.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The template refuses the messages or an option, or two options cannot be told apart.
            ContextOverflowError: Prompt and longest option do not fit.
            SettingError: There are not two different options, or a setting is outside its range or of another type.
        """
        texts, asked = checked_options(options), said(prompt, images, system, messages)
        return self.decider(asked.pictures, decide_settings(settings)).decide(asked.messages, texts)

    def decide_each(
        self,
        questions: Iterable[tuple[str, Iterable[str]]],
        images: Pictures = (),
        *,
        system: str | None = None,
        **settings: Unpack[DecideOptions],
    ) -> Iterator[Decision]:
        """Decide several questions about the same pictures, which are read, encoded and prefilled once.

        Args:
            questions: Prompts, each with its options.
            images: The pictures of every question.
            system: A system message before each.
            settings: See :class:`edge_mllm.DecideOptions`.

        Yields:
            One decision a question, in order. Errors as :meth:`decide`; they end the iteration.
        """
        pictures = listed(images)
        decider = self.decider(pictures, decide_settings(settings))
        asked = ((said(prompt, pictures, system, None).messages, checked_options(each)) for prompt, each in questions)
        if decider.settings.calibrate:
            known = list(asked)
            decider.calibrate(known)
            return (decider.decide(*each) for each in known)
        return (decider.decide(*each) for each in asked)

    def decider(self, pictures: Sequence[Picture], settings: DecideSettings) -> Decider:
        """What decides questions about the same pictures."""
        return Decider(self.pipeline, pictures, settings, self._empty)

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation that remembers its turns."""
        return Chat(self.pipeline, system=system)

    def plan(
        self,
        prompt: str | None = None,
        images: Pictures = (),
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AnswerPlan:
        """What :meth:`generate` with the same arguments will take: tiles, tokens, bytes, and seconds where known.

        Limits that cannot be kept are no error here: the plan shows the coarsest tiling and what it takes.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The image budget cannot be kept, or the model's template refuses the messages.
        """
        asked, request = said(prompt, images, system, messages), request_of(**options)
        return self.pipeline.plan(asked.pictures, Conversation(asked.messages, ()), request)

    def load_chat(self, path: str | Path) -> Chat:
        """Go on with a conversation that :meth:`edge_mllm.session.chat.Chat.save` wrote, without computing it again.

        Raises:
            ChatFileError: There is no such file, it is damaged, or it was saved with another bundle, engine or setting.
        """
        return Chat.load(self.pipeline, path)

    def binding(self) -> dict[str, str]:
        """What the bits of the decoder's cache depend on: bundle, engine, its version, settings, machine."""
        return self._parts.binding()

    def prepare(self, *images: Pictures, **options: Unpack[PictureOptions]) -> Preparation:
        """Start encoding pictures in the background, for example while the user types.

        The next answers about them, with the same options of pictures, use what was made or wait for it. What is wrong
        with a picture is raised where it is used. :meth:`close` stops what still runs.

        Raises:
            SettingError: An option is outside its range.
        """
        budget = request_of(**options).budget
        return self._preparations.start([picture for each in images for picture in listed(each)], budget)

    def use_large_pages(self) -> Preparation:
        """Start moving what is in memory now into large pages, in the background; answers may come meanwhile.

        It takes about 0.4 s for 300 MB and adds no memory. Worth it where many tokens follow; see
        :mod:`edge_mllm.machine.large_pages`. Nothing happens where the system cannot do it.
        """
        self.pipeline.tell_large_pages(True)

        def work(preparation: Preparation) -> None:
            collapse_resident(preparation.check)

        return self._preparations.run(work)

    def preprocess(self, picture: Picture) -> Preprocessed:
        """What the tower gets: ``.pixels`` [tiles, 3, height, width] or packed patches, ``.grid``, ``.tokens``."""
        return cut_tiles(load_rgb(picture), self.spec.image, self.spec.vision)

    def encode(self, picture: Picture) -> FloatArray:
        """Visual embeddings float32 [tokens, row_width], as the decoder takes them."""
        with self.pipeline.turns.turn():
            (part,) = self.reader.pictures([picture], ImageBudget())
            return encoded_rows(self._tower, part)

    def prompt_ids(
        self,
        prompt: str | None = None,
        images: Pictures = (),
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
    ) -> IntArray:
        """Token ids int64 [n] of what :meth:`generate` would see, the image token repeated once per visual token."""
        asked = said(prompt, images, system, messages)
        parts = self.reader.pictures(asked.pictures, ImageBudget())
        return self.pipeline.prompt(Conversation(asked.messages, parts)).ids

    def load_tower(self) -> None:
        """Load the vision tower now instead of with the first picture."""
        self._tower.load()

    def close(self) -> None:
        """Free native memory, after an answer that another thread is reading; the model is unusable afterwards.

        In a forked process nothing is freed: the native threads are in the process that loaded the model.
        """
        turns = self.pipeline.turns
        if turns.forked or not turns.close():
            return
        self.pipeline.forget()
        self._preparations.close()
        self._encoder.close()
        self.decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
