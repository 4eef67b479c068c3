import json
import pickle
import random
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.errors import CheckpointError, ConfigError, InputError
from omni.text import CONTROL_TOKENS, TextTokenizer
from scripts.train_tokenizer import train

SHIPPED = Path(__file__).parents[1] / "tokenizers" / "text" / "nano"
KINDS = ("shipped", "byte_level", "byte_fallback")
LINES = [
    "A fox to the left of a red house.",
    "Draw three small trees, please!",
    "What is there? 12 boats.",
] * 20

# Every code point, lone surrogates among them.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)
tricky = st.sampled_from(
    [*CONTROL_TOKENS[:12], "<unk>", "<s>", "<0x41>", "\u2581", "\0", " ", "\n", "\ud83d", "\ude00"]
)


def byte_level_json() -> dict:
    """A byte-level BPE like Qwen's: NFC, special tokens, and added tokens matched ahead of the model."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=True))
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>", "fox"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens(["<think>", "<|image|>"])
    return json.loads(tokenizer.to_str())


def byte_fallback_json() -> dict:
    """A BPE with byte fallback like the first Llamas': a prefixed space and U+2581 for spaces."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        *"abcdefox",
        "fo",
        "fox",
    ]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    model = tokenizers.models.BPE(vocab=vocab, merges=[("f", "o"), ("fo", "x")], unk_token="<unk>", byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    mark, prefix = tokenizers.normalizers.Replace(" ", "\u2581"), tokenizers.normalizers.Prepend("\u2581")
    tokenizer.normalizer = tokenizers.normalizers.Sequence([prefix, mark])
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory) -> TextTokenizer:
    if request.param == "shipped":
        return TextTokenizer.from_folder(SHIPPED)
    folder = tmp_path_factory.mktemp(request.param)
    settings_json = byte_level_json() if request.param == "byte_level" else byte_fallback_json()
    (folder / "tokenizer.json").write_text(json.dumps(settings_json))
    return TextTokenizer.from_folder(folder)


def test_control_tokens_follow_the_text_ids(tokenizer):
    ids = [tokenizer.control(name) for name in CONTROL_TOKENS]
    assert ids == list(range(tokenizer.num_text_ids, tokenizer.vocab_size))
    assert [tokenizer.control_name(token_id) for token_id in ids] == list(CONTROL_TOKENS)
    assert tokenizer.control_name(0) is None
    assert len(set(CONTROL_TOKENS)) == len(CONTROL_TOKENS)
    with pytest.raises(ConfigError, match="no_such"):
        tokenizer.control("no_such")


def test_encode_never_gives_control_ids_to_pieces_of_control_tokens(tokenizer):
    rng = random.Random(0)
    names = [*CONTROL_TOKENS, "<|im_start|>", "<think>", "<s>", "</s>", "<unk>", "fox"]
    for _ in range(10_000):
        pieces = []
        for _ in range(rng.randint(1, 6)):
            name = rng.choice(names)
            start = rng.randrange(len(name))
            pieces.append(name if rng.random() < 0.4 else name[start : rng.randint(start, len(name))])
        text = "".join(pieces)
        ids = tokenizer.encode(text)
        assert max(ids, default=0) < tokenizer.num_text_ids, text
        assert tokenizer.decode(ids) == text


def test_encode_never_gives_special_ids_of_the_language_model(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level_json()))
    own = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    names = ["<|im_start|>", "<|im_end|>", "fox", "<think>", "<|image|>"]
    special = {own.token_to_id(name) for name in names}
    tokenizer = TextTokenizer.from_folder(tmp_path)
    assert special.isdisjoint(tokenizer.encode(" ".join(names)))
    assert special.isdisjoint(tokenizer.encode("fox"))
    assert tokenizer.num_text_ids == own.get_vocab_size()


def test_encode_gives_the_language_models_own_ids(tmp_path):
    own_json = byte_level_json()
    own_json["pre_tokenizer"]["add_prefix_space"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(own_json))
    own = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "A tree to the left of three small houses. \u00e9 12"
    assert TextTokenizer.from_folder(tmp_path).encode(text) == own.encode(text).ids


@settings(max_examples=120, deadline=None)
@given(text=st.lists(any_text | tricky).map("".join))
def test_decode_gives_any_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(0 <= token_id < tokenizer.num_text_ids for token_id in ids)
    assert tokenizer.decode(ids) == text


def test_decode_gives_code_points_of_every_block_back(tokenizer):
    text = "".join(map(chr, range(0, 0x110000, 11)))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_stream_decoder_equals_decode(tokenizer, data):
    written = tokenizer.encode(data.draw(any_text))
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1) | st.sampled_from(written or [0]), max_size=40))
    for sequence in (written, ids):
        stream = tokenizer.stream_decoder()
        text = "".join(map(stream.push, sequence)) + stream.flush()
        assert text == tokenizer.decode(sequence)


def test_stream_decoder_waits_for_the_whole_character(tokenizer):
    stream = tokenizer.stream_decoder()
    ids = tokenizer.encode("\U0001f98a")
    assert [stream.push(token_id) for token_id in ids] == [""] * (len(ids) - 1) + ["\U0001f98a"]
    stream.push(ids[0])
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_decode_skips_control_ids_and_refuses_others(tokenizer):
    ids = tokenizer.encode("a b")
    assert tokenizer.decode([tokenizer.control("<|user|>"), *ids, tokenizer.control("<|end|>")]) == "a b"
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(InputError, match=str(token_id)):
            tokenizer.decode([token_id])


def test_encode_refuses_what_is_no_text(tokenizer):
    with pytest.raises(InputError, match="bytes"):
        tokenizer.encode(b"abc")


def test_saved_equals_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    text = "A fox, \u2581 and \0 \ud800!"
    for copy in (TextTokenizer.from_folder(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.encode(text) == tokenizer.encode(text)
        assert copy.vocab_size == tokenizer.vocab_size


def test_num_text_ids_leaves_room(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    padded = TextTokenizer.from_folder(tmp_path, num_text_ids=tokenizer.num_text_ids + 100)
    assert padded.control("<|pad|>") == tokenizer.control("<|pad|>") + 100
    assert padded.decode([padded.num_text_ids - 1]) == ""
    padded.save(tmp_path)
    assert TextTokenizer.from_folder(tmp_path).num_text_ids == padded.num_text_ids
    for wrong in (3, "many", True):
        with pytest.raises(ConfigError, match="num_text_ids"):
            TextTokenizer.from_folder(tmp_path, num_text_ids=wrong)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[1]", b"{}", bytes(5_000)])
def test_from_folder_refuses_damaged_files(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="tokenizer"):
        TextTokenizer.from_folder(tmp_path)


def test_from_folder_refuses_truncated_models(tmp_path):
    data = (SHIPPED / "tokenizer.model").read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "tokenizer.model").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CheckpointError):
            TextTokenizer.from_folder(tmp_path)


def test_from_folder_refuses_a_tokenizer_that_changes_text(tmp_path):
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(LINES), model_prefix=str(tmp_path / "tokenizer"), vocab_size=32, minloglevel=2
    )
    with pytest.raises(CheckpointError, match="unchanged"):
        TextTokenizer.from_folder(tmp_path)


def test_from_folder_names_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="tokenizer.model"):
        TextTokenizer.from_folder(tmp_path)


def test_long_text_is_encoded_quickly(tokenizer):
    for text in ("a" * 100_000, "\u2581 " * 50_000, "the fox\n" * 12_500):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_is_deterministic():
    assert train(LINES, vocab_size=420) == train(LINES, vocab_size=420)
