"""Text files, Parquet files and directories of them become a training and a validation split; text becomes tokens."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.tasks.data import parquet, tokens
from spectra_cli.tasks.data import text as text_module
from spectra_cli.tasks.data.text import (
    embedded_text,
    held_out,
    letters_digits_and_space,
    read_splits,
    read_texts,
)
from spectra_cli.tasks.data.tokens import ByteTokenizer, FileTokenizer, open_tokenizer

UNKNOWN = "<unk>"
ROWS = [" = Title = \n", "", "First line \n", "Größe: 5 µm", None, "last \n"]


def write_rows(path: Path, rows: Sequence[object], **columns: Sequence[object]) -> Path:
    pq.write_table(pa.table({"text": rows, **columns}), path)
    return path


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def test_the_embedded_text_is_the_book_and_nothing_else() -> None:
    """Its twelve chapters from title to end, at least 100 kB; no word of who made the electronic edition."""
    text = embedded_text()
    assert len(text) == 148_426
    assert text.split("\n", 1)[0].strip() == "ALICE'S ADVENTURES IN WONDERLAND"
    assert text.strip().endswith("THE END")
    numbers = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    assert [line.split()[1] for line in text.splitlines() if line.strip().startswith("CHAPTER ")] == numbers
    assert set(text) <= {chr(code) for code in range(32, 127)} | {"\n"}
    lower = text.lower()
    assert not [word for word in ("gutenberg", "fulcrum", "copyright", "http") if word in lower]


def test_the_embedded_text_states_its_source() -> None:
    source = files("spectra_cli.tasks.data").joinpath("alice.source.txt").read_text()
    for stated in ("Alice's Adventures in Wonderland", "Lewis Carroll", "1865", "public domain", "brotli 1.2.1"):
        assert stated in source


def test_the_embedded_text_is_made_of_the_file_that_its_source_names() -> None:
    """Undo what the source file says was changed: the digest is that of alice29.txt."""
    lines = embedded_text().split("\n")
    edition = " " * 15 + "THE MILLENNIUM FULCRUM EDITION 2.9"
    original = "\r\n".join([*[""] * 4, *lines[:4], edition, *lines[4:]]) + "\x1a"
    stated = files("spectra_cli.tasks.data").joinpath("alice.source.txt").read_text()
    assert hashlib.sha256(original.encode()).hexdigest() in stated


def test_the_default_is_the_embedded_text() -> None:
    splits = read_splits(None)
    assert "".join(splits["train"] + splits["val"]) == embedded_text()
    assert len(splits["val"][0]) == 14_842


def test_a_text_file_is_read_as_it_is(tmp_path: Path) -> None:
    """Line ends included, and without a byte order mark."""
    text = "Zeile eins\r\nGröße 二\n\nEnde"
    assert read_texts(written(tmp_path / "a.txt", text)) == [text]
    assert read_texts(written(tmp_path / "b", "\ufeff" + text)) == [text]


def test_rows_of_parquet_are_lines(tmp_path: Path) -> None:
    """As in WikiText on the hub; a row without a line end gets one, so that rows do not run together."""
    expected = [" = Title = \n", "\n", "First line \n", "Größe: 5 µm\n", "last \n"]
    assert read_texts(write_rows(tmp_path / "a.parquet", ROWS, label=range(6))) == expected
    blob = write_rows(tmp_path / "0123abc", ROWS)  # as in the hub's cache: told by its content
    assert read_texts(blob) == expected


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_other_sorts_of_strings_in_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(["one\n", "two\n", "one\n"]).cast(kind)}), path)
    assert read_texts(path) == ["one\n", "two\n", "one\n"]


def test_parquet_of_more_rows_than_are_unpacked_at_once(tmp_path: Path) -> None:
    rows = [f"row {number}\n" for number in range(1000)]
    assert read_texts(write_rows(tmp_path / "a.parquet", rows)) == rows


@pytest.mark.parametrize("texts", [["0123456789" * 3], ["0", "1234", "", "56789" * 5], ["abc"], [], [""]])
def test_the_last_tenth_of_all_characters_is_held_out(texts: list[str]) -> None:
    splits = held_out(texts)
    whole = "".join(texts)
    assert "".join(splits["val"]) == (whole[-(len(whole) // 10) :] if len(whole) >= 10 else "")
    assert "".join(splits["train"] + splits["val"]) == whole
    assert "" not in splits["train"] + splits["val"]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train.txt", "valid.txt"),
        ("train.txt", "validation.txt"),
        ("training.txt", "val.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens"),
        ("wiki.train.raw", "wiki.valid.raw"),
        ("train_en.txt", "dev_en.txt"),
    ],
)
def test_files_of_a_directory_are_told_by_their_names(tmp_path: Path, train: str, val: str) -> None:
    """The test split is left alone, and so is what has another name."""
    written(tmp_path / train, "training text")
    written(tmp_path / val, "validation text")
    for other in ("test.txt", "wiki.test.tokens", "trainer.txt", "README.md", "train.bin"):
        written(tmp_path / other, "something else")
    (tmp_path / "train").mkdir()
    assert read_splits(str(tmp_path)) == {"train": ["training text"], "val": ["validation text"]}


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for number in (1, 0, 2):
        write_rows(tmp_path / f"train-{number:05d}-of-00003-a09b.parquet", [f"shard {number}"])
    write_rows(tmp_path / "validation-00000-of-00001.parquet", ["held out"])
    write_rows(tmp_path / "test-00000-of-00001.parquet", ["test"])
    assert read_splits(tmp_path) == {"train": ["shard 0\n", "shard 1\n", "shard 2\n"], "val": ["held out\n"]}


def test_a_directory_without_validation_gives_the_last_tenth_of_training(tmp_path: Path) -> None:
    written(tmp_path / "train.txt", "0123456789" * 2)
    assert read_splits(tmp_path) == {"train": ["012345678901234567"], "val": ["89"]}


def test_the_papers_filter() -> None:
    """What is no letter, digit or white space goes, the underscore as well; letters of all scripts are letters."""
    text = " = Valkyria_Chronicles III = \n @-@ <unk> 3.5 km², Größe ГОД 日本\tx²"
    expected = "".join(c for c in text.lower() if c.isalnum() or c.isspace())
    assert letters_digits_and_space(text) == expected
    assert "_" not in expected
    assert "größe год 日本" in expected


def not_utf8(folder: Path) -> Path:
    path = folder / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait")
    return path


def other_column(folder: Path) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table({"content": ["a"], "label": [1]}), path)
    return path


def numbers_in_column(folder: Path) -> Path:
    return write_rows(folder / "a.parquet", [1, 2])


def cut_parquet(folder: Path) -> Path:
    path = write_rows(folder / "a.parquet", [str(number) for number in range(5000)])
    path.write_bytes(path.read_bytes()[:2000])
    return path


def spoiled_parquet(folder: Path) -> Path:
    path = write_rows(folder / "a.parquet", [str(number) for number in range(5000)])
    content = bytearray(path.read_bytes())
    content[4:600] = b"\xff" * 596
    path.write_bytes(content)
    return path


def parquet_of_latin1(folder: Path) -> Path:
    """Bytes that are no UTF-8, declared as strings."""
    strings = pa.StringArray.from_buffers(
        1, pa.py_buffer(np.array([0, 4], dtype=np.int32).tobytes()), pa.py_buffer(b"caf\xe9")
    )
    path = folder / "a.parquet"
    pq.write_table(pa.table({"text": strings}), path)
    return path


def text_named_parquet(folder: Path) -> Path:
    return written(folder / "a.parquet", "plain text")


def no_training(folder: Path) -> Path:
    written(folder / "valid.txt", "text")
    return folder


def empty_folder(folder: Path) -> Path:
    return folder


def two_for_training(folder: Path) -> Path:
    written(folder / "train.txt", "text")
    write_rows(folder / "train-00000-of-00001.parquet", ["text"])
    return folder


def two_for_validation(folder: Path) -> Path:
    for name in ("train.txt", "valid.txt", "validation.txt"):
        written(folder / name, "text")
    return folder


def two_sets_of_shards(folder: Path) -> Path:
    for name in ("train-00000-of-00002", "train-00001-of-00003", "train-00002-of-00003"):
        write_rows(folder / f"{name}.parquet", ["text"])
    return folder


def the_same_shard_twice(folder: Path) -> Path:
    for name in ("train-00000-of-00002-a", "train-00000-of-00002-b"):
        write_rows(folder / f"{name}.parquet", ["text"])
    return folder


def missing_shards(folder: Path) -> Path:
    for number in (0, 2):
        write_rows(folder / f"train-{number:05d}-of-00004.parquet", ["text"])
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.txt", "absent.txt: there is no such file. Mend the path of --data."),
        (not_utf8, "latin.txt: is not UTF-8 text: byte 0xe9 at position 3. Convert it, for example with iconv"),
        (other_column, "a.parquet: has no column 'text'; its columns are content, label."),
        (numbers_in_column, "a.parquet: its column 'text' is of type int64, not string."),
        (cut_parquet, "a.parquet: is not a sound Parquet file: "),
        (spoiled_parquet, "a.parquet: is not a sound Parquet file: "),
        (parquet_of_latin1, "a.parquet: is not a sound Parquet file: 'utf-8' codec can't decode byte 0xe9"),
        (text_named_parquet, "a.parquet: is not a sound Parquet file: "),
        (no_training, "holds no text for training; it holds valid.txt. Name the files train.txt and validation.txt"),
        (empty_folder, "holds no text for training; it holds nothing."),
        (two_for_training, "holds more than one text for train: train-00000-of-00001.parquet, train.txt."),
        (two_for_validation, "holds more than one text for val: valid.txt, validation.txt."),
        (two_sets_of_shards, "holds more than one text for train: train-00000-of-00002.parquet"),
        (the_same_shard_twice, "holds more than one text for train: train-00000-of-00002-a.parquet"),
        (missing_shards, "lacks shard 1, 3 of 4 of the text for train. Restore it"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_splits(make(tmp_path))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_more_text_than_fits_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a small file says the same thirty times: the unpacked length counts."""
    path = tmp_path / name
    row = "x" * 1000
    text = written(path, row * 30) if name == "a.txt" else write_rows(path, [row] * 30)
    monkeypatch.setattr(parquet, "ROWS", 7)
    monkeypatch.setattr(text_module, "MOST_BYTES", 40_000)
    assert len("".join(read_texts(text)).replace("\n", "")) == 30_000
    monkeypatch.setattr(text_module, "MOST_BYTES", 29_000)
    with pytest.raises(InputError, match="holds more than 29000 bytes of text"):
        read_texts(text)
    assert name == "a.txt" or path.stat().st_size < 29_000


def test_bytes_are_tokens() -> None:
    found = ByteTokenizer().tokens(["aé", "", "\n"])
    assert found.tolist() == [97, 0xC3, 0xA9, 10]
    assert found.dtype == torch.uint8
    assert ByteTokenizer().tokens([]).tolist() == []
    assert open_tokenizer("bytes").vocabulary == 256


def write_tokenizer(path: Path) -> Path:
    """Words between spaces; asks for marks around every text, for cutting and for padding, and has a gap in its ids."""
    words = {UNKNOWN: 0, "the": 1, "cat": 2, "sat": 3, "<s>": 9}
    tokenizer = tokenizers.Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A <s>", special_tokens=[("<s>", 9)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=7)
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_gives_the_tokens_of_the_text_alone(tmp_path: Path) -> None:
    """Nothing before, after or between; nothing cut off; the vocabulary holds the largest id."""
    found = FileTokenizer(write_tokenizer(tmp_path / "tokenizer.json")).tokens(["the cat sat", "", "the dog\n"])
    assert found.tolist() == [1, 2, 3, 1, 0]
    assert found.dtype == torch.int32
    assert open_tokenizer(str(tmp_path)).vocabulary == 10
    assert open_tokenizer(str(tmp_path)).tokens([]).tolist() == []


def test_many_texts_are_tokenized_in_order(tmp_path: Path) -> None:
    """More than are handed over at once."""
    texts = [("the", "cat", "sat")[number % 3] for number in range(2500)]
    tokenizer = open_tokenizer(str(write_tokenizer(tmp_path / "other.json")))
    assert tokenizer.tokens(texts).tolist() == [number % 3 + 1 for number in range(2500)]


def test_what_is_no_tokenizer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"absent: there is no such file\. Give a tokenizer\.json"):
        open_tokenizer(str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"tokenizer\.json: there is no such file"):
        open_tokenizer(str(tmp_path))
    broken = written(tmp_path / "broken.json", '{"version": "1.0"}')
    with pytest.raises(InputError, match=r"broken\.json: is no tokenizer: "):
        open_tokenizer(str(broken))
    empty = tmp_path / "empty.json"
    tokenizers.Tokenizer(WordLevel({}, unk_token=UNKNOWN)).save(str(empty))
    with pytest.raises(InputError, match=r"empty\.json: has no tokens"):
        open_tokenizer(str(empty))
    path = write_tokenizer(tmp_path / "tokenizer.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spectra-weights\[hf\]'"):
        open_tokenizer(str(path))


@pytest.mark.parametrize(
    ("name", "rows"), [("a.txt", None), ("a.parquet", []), ("a.parquet", [None, None])], ids=["text", "none", "null"]
)
@pytest.mark.parametrize("alone", [True, False])
def test_no_text_at_all_is_refused(tmp_path: Path, name: str, rows: list[None] | None, alone: bool) -> None:
    path = tmp_path / (name if alone else f"train.{name[2:]}")
    if rows is None:
        path.touch()
    else:
        pq.write_table(pa.table({"text": pa.array(rows, pa.string())}), path)
    with pytest.raises(InputError, match=f"{path.name}: holds no text"):
        read_splits(path if alone else tmp_path)


def test_two_columns_of_text_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: has 2 columns 'text'"):
        read_texts(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_that_repeats_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType
) -> None:
    """The file holds 10 kB once, and says that 200 rows are so."""
    path = tmp_path / "a.parquet"
    indices = pa.array([0] * 200, pa.int32())
    repeated = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 10_000]))
    pq.write_table(pa.table({"text": repeated.cast(kind)}), path)
    (batch,) = parquet.column_batches(path, "text", "text", (), 2**20)
    assert batch.nbytes < 20_000
    assert sum(map(len, read_texts(path))) == 200 * 10_001
    monkeypatch.setattr(text_module, "ALWAYS_BYTES", 100_000)
    monkeypatch.setattr(text_module, "LARGEST_EXPANSION", 1)
    with pytest.raises(InputError, match=r"a.parquet: holds more than 100000 bytes of text, .* proportion"):
        read_texts(path)


def test_a_column_that_claims_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [f"{number:05}" * 20 for number in range(1000)])
    with pytest.raises(InputError, match="its column 'text' would take 0 MiB, which is out of all proportion"):
        list(parquet.column_batches(path, "text", "text", (), 1000))


def test_text_that_does_not_fit_into_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 8192 failed")

    monkeypatch.setattr(text_module, "column_batches", full)
    with pytest.raises(InputError, match=r"a.parquet: does not fit into memory\. Give a part of it"):
        read_texts(write_rows(tmp_path / "a.parquet", ["text"]))


def test_long_texts_are_cut_where_lines_end_before_they_are_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the text, in order; a line is not cut however long it is, and no more than so much is there at once."""
    monkeypatch.setattr(tokens, "PIECE", 10)
    monkeypatch.setattr(tokens, "CHARACTERS", 40)
    texts = ["one\ntwo\nthree\nfour\nfive\n", "", "x" * 35, "six\n" * 20, "last"]
    portions = list(tokens.portions(texts))
    pieces = [piece for portion in portions for piece in portion]
    assert "".join(pieces) == "".join(texts)
    assert pieces[:3] == ["one\ntwo\nthree\n", "four\nfive\n", ""]
    assert all(piece.endswith("\n") or piece in texts for piece in pieces)
    assert max(map(len, pieces)) == 35
    assert [sum(map(len, portion[:-1])) < 40 for portion in portions] == [True] * len(portions)


class Panic(BaseException):
    """As Rust's panics are in Python."""


@pytest.mark.parametrize("error", [Panic("called `Option::unwrap()`\non a None"), Exception("no unk"), OverflowError()])
def test_a_tokenizer_that_fails_is_told_by_its_file(tmp_path: Path, error: BaseException) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = FileTokenizer(path)

    class Failing:
        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise error

    tokenizer._tokenizer = Failing()
    with pytest.raises(InputError, match=r"tokenizer.json: fails to make tokens of the text: \S+") as caught:
        tokenizer.tokens(["text"])
    assert "\n" not in str(caught.value)
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        tokenizer.tokens(["text"])


def test_a_vocabulary_without_its_unknown_token_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(WordLevel({"the": 0}, unk_token=UNKNOWN)).save(str(path))
    with pytest.raises(InputError, match=r"tokenizer.json: fails to make tokens"):
        FileTokenizer(path).tokens(["cat"])


def test_tokens_are_numbered_within_32_bits(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    content = path.read_text()
    assert content.count('"cat": 2') == 1
    path.write_text(content.replace('"cat": 2', f'"cat": {2**32 - 5}'))
    with pytest.raises(InputError, match="numbers a token 4294967291"):
        FileTokenizer(path)
