"""A chat of 4,000 tokens with three pictures: every turn prefills what is new, and nothing is lost by that.

The last logits must be, bit for bit, those of a cold decoder that computes the same calls one after the other. Against
one prefill of the whole they differ by rounding alone; these decoders are 32-bit floats.
"""

import numpy as np
import pytest
from call_recorder import Recorder
from tiny_models import make_tiny_smolvlm
from tiny_qwen2_vl import make_tiny_qwen2_vl

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.decoding.splice import splice
from edge_mllm.answer.messages import user_message

TURNS = 10
SHORT = GenerateOptions(max_new_tokens=6, ignore_eos=True)
MAKERS = {
    "sequential": lambda place: make_tiny_smolvlm(place, text={"max_position_embeddings": 8192}),
    "mrope": lambda place: make_tiny_qwen2_vl(place, max_position_embeddings=8192),
}


@pytest.fixture(scope="module", params=MAKERS)
def bundle(request, tmp_path_factory):
    from edge_mllm_export import ExportOptions, export_bundle

    folder = tmp_path_factory.mktemp("long")
    checkpoint, out = MAKERS[request.param](folder / "tiny"), folder / "tiny.edge"
    export_bundle(str(checkpoint), out, ExportOptions(format="both", quant="f32", vision="fp32", verify=False))
    return out


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (112, 168, 3), dtype=np.uint8)


def question(turn: int, size: int) -> str:
    """About ``size`` tokens: these tokenizers take every letter apart."""
    letters = np.random.default_rng(turn).integers(97, 123, size).astype(np.uint8)
    return f"{turn}? {letters.tobytes().decode()}"


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_tenth_turn_computes_only_itself(bundle, engine, monkeypatch):
    def load():
        return edge_mllm.load(bundle, engine=engine, threads=1, kv_type="f32", check_hashes=False)

    with load() as model, load() as cold:
        chat, recorder = model.chat(), Recorder(model.decoder, monkeypatch)
        for turn in range(TURNS):
            asked, before = question(turn, 520), len(recorder.calls)
            images = [pixels(turn)] if turn in (0, 3, 7) else []
            past = model.decoder.n_past
            usage = chat.ask(asked, images, **SHORT).usage
            new = usage.prompt_tokens - usage.reused_tokens
            assert turn == 0 or past - 6 <= usage.reused_tokens <= past  # the answer of 6 may be tokenised anew
            assert all(start >= usage.reused_tokens for start, *_ in recorder.calls[before:])
        assert usage.prompt_tokens > 4000
        assert new < 600
        for _, name, argument in recorder.calls:
            logits = getattr(cold.decoder, name)(argument)
        assert cold.decoder.n_past == model.decoder.n_past
        assert np.array_equal(logits, recorder.logits[-1])

        messages = [*chat.messages, user_message("Last?", 0)]
        conversation = Conversation(messages, chat._pictures)
        prompt = model.pipeline.prompt(conversation)
        rows = [picture.content for picture in chat._pictures]
        grids = [picture.token_grid for picture in chat._pictures]
        cold.decoder.truncate(0)
        one_shot = cold.decoder.prefill(splice(prompt, rows, cold.decoder.n_embd, grids))
        chat.ask("Last?", max_new_tokens=1, ignore_eos=True)
        assert np.abs(recorder.logits[-1] - one_shot).max() < 2e-3 * one_shot.std()
