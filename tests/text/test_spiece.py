"""The SentencePiece reader against known facts, against protobuf, and against damaged files."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.errors import CheckpointError
from bothways.text.spiece import CONTROL, NORMAL, UNIGRAM, UNKNOWN, USER_DEFINED, read_spiece
from bothways.text.tokenizer import PACKAGED

ALBERT = PACKAGED / "albert-base-v2" / "spiece.model"


def test_albert_has_its_published_tokens() -> None:
    model = read_spiece(ALBERT)
    assert len(model.pieces) == 30_000
    assert model.algorithm == UNIGRAM
    assert [piece.text for piece in model.pieces[:6]] == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "("]
    kinds = [piece.kind for piece in model.pieces]
    assert kinds[:6] == [CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL, USER_DEFINED]
    assert kinds.count(USER_DEFINED) == 8
    assert kinds.count(NORMAL) == 29_987
    assert len(model.charsmap) == 237_539


def test_every_field_equals_what_protobuf_reads() -> None:
    pytest.importorskip("google.protobuf")
    from transformers.convert_slow_tokenizer import import_protobuf

    message = import_protobuf().ModelProto()
    message.ParseFromString(ALBERT.read_bytes())
    model = read_spiece(ALBERT)
    assert [tuple(piece) for piece in model.pieces] == [(p.piece, p.score, p.type) for p in message.pieces]
    assert model.charsmap == message.normalizer_spec.precompiled_charsmap
    assert model.algorithm == message.trainer_spec.model_type


@pytest.mark.parametrize("cut", [0, 1, 5, 1_000, 380_144, 522_000, 522_700, 760_288])
def test_a_truncated_file_is_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(ALBERT.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"spiece\.model: not a complete SentencePiece model .* copy it again"):
        read_spiece(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_one_way(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "spiece.model"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SentencePiece"):
        read_spiece(path)
