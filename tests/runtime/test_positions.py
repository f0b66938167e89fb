import numpy as np
import pytest

from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.positions import PositionTrack
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.decoders.segments import check_segments
from edge_mllm.errors import EngineError

PLAIN = DecoderSpec(n_embd=8, n_vocab=100, n_layer=1, context_length=64)
MROPE = DecoderSpec(n_embd=8, n_vocab=100, n_layer=1, context_length=64, positions="mrope", mrope_sections=(2, 1, 1))


def tokens(n: int) -> Tokens:
    return Tokens(np.arange(n, dtype=np.int64))


def visual(rows: int, columns: int) -> Visual:
    return Visual(np.zeros((rows * columns, 8), np.float32), (rows, columns))


def test_plain_positions_count_cells():
    track = PositionTrack(PLAIN)
    placed = track.place([tokens(3), visual(2, 2), tokens(1)])
    assert np.concatenate([part.positions for part in placed], axis=1).tolist() == [list(range(8))]
    for part in placed:
        track.extend(part.after)
    assert (len(track), track.next) == (8, 8)
    track.truncate(5)
    assert (len(track), track.next) == (5, 5)


def test_mrope_equals_transformers():
    """Positions of text, a 2x3 picture, text, a 3x2 picture, text, against Qwen2.5-VL's own function."""
    import torch
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    config = Qwen2_5_VLConfig(
        image_token_id=90,
        vision_start_token_id=91,
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                     "intermediate_size": 16, "vocab_size": 100},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16},
    )  # fmt: skip
    ids = [1, 2, 91, *[90] * 6, 3, 91, *[90] * 6, 4, 5]
    grid = torch.tensor([[1, 4, 6], [1, 6, 4]])
    kinds = torch.tensor([[1 if token == 90 else 0 for token in ids]])
    with torch.device("meta"):
        model = Qwen2_5_VLModel(config)
    expected, _ = model.get_rope_index(torch.tensor([ids]), kinds, grid, attention_mask=torch.ones(1, len(ids)))
    track = PositionTrack(MROPE)
    segments = [tokens(3), visual(2, 3), tokens(2), visual(3, 2), tokens(2)]
    found = np.concatenate([part.positions for part in track.place(segments)], axis=1)
    assert found.tolist() == expected[:, 0].tolist()


def test_mrope_cutting_back_restores_the_position():
    track = PositionTrack(MROPE)
    for part in track.place([tokens(2), visual(2, 3), tokens(2)]):
        track.extend(part.after)
    assert len(track) == 10
    assert track.next == 2 + 3 + 2
    track.truncate(8)
    assert track.next == 5
    track.truncate(2)
    assert track.next == 2


def test_mrope_needs_the_grid():
    track = PositionTrack(MROPE)
    with pytest.raises(EngineError, match="grid"):
        track.place([Visual(np.zeros((4, 8), np.float32))])


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Tokens(np.array([0, 100])), "100 is outside"),
        (Tokens(np.array([-1, 3])), "-1 is outside"),
        (Tokens(np.array([[1, 2]])), "integers"),
        (Tokens(np.array([0.5])), "integers"),
        (Visual(np.zeros((2, 7), np.float32)), "float32"),
        (Visual(np.zeros((2, 8), np.float64)), "float32"),
        (Visual(np.zeros(8, np.float32)), "float32"),
        (Visual(np.full((2, 8), np.nan, np.float32)), "not numbers"),
        (Visual(np.full((2, 8), np.inf, np.float32)), "not numbers"),
    ],
)
def test_bad_segments_are_refused(segment, message):
    with pytest.raises(EngineError, match=message):
        check_segments([segment], 8, 100)


def test_some_tokens_of_a_picture_keep_their_positions():
    whole, part = PositionTrack(MROPE), PositionTrack(MROPE)
    kept = np.array([1, 2, 5, 11], np.int64)
    some = Visual(np.zeros((4, 8), np.float32), (3, 4), kept)
    _, picture, after = whole.place([tokens(2), visual(3, 4), tokens(2)])
    ours = part.place([tokens(2), some, tokens(2)])
    np.testing.assert_array_equal(ours[1].positions, picture.positions[:, kept])
    np.testing.assert_array_equal(ours[1].after, picture.after[kept])
    np.testing.assert_array_equal(ours[2].positions, after.positions)
    plain = PositionTrack(PLAIN).place([tokens(2), some, tokens(1)])
    assert [each.positions[0].tolist() for each in plain] == [[0, 1], [2, 3, 4, 5], [6]]


@pytest.mark.parametrize("kept", [[1, 0, 2], [0, 1, 1], [-1, 0, 1], [0, 1, 12], [0, 1]])
def test_places_outside_the_grid_are_refused(kept):
    with pytest.raises(EngineError, match="needs its grid"):
        PositionTrack(MROPE).place([Visual(np.zeros((3, 8), np.float32), (3, 4), np.array(kept, np.int64))])
