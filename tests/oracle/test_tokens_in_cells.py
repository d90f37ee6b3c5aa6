"""The tokenizer in cells, in LibreOffice, against tiktoken: over a thousand texts of every kind."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import SHARED
from texts import build, made_up, texts, words

from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.model.bpe import tokenization
from xlgpt.model.checkpoint import TINY
from xlgpt.workbook.book import Book

pytestmark = pytest.mark.libreoffice
GPT2 = SHARED / "gpt2-tokenizer"


@pytest.fixture(scope="module", params=["bundled", pytest.param("GPT-2", marks=pytest.mark.shared)])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Book, LibreOffice]]:
    folder = tmp_path_factory.mktemp("tokens")
    path = build(folder, TINY, 1280, 128) if request.param == "bundled" else build(folder, GPT2, 50257, 256)
    book = Book(path)
    engine = LibreOffice(book)
    engine.write(book.named("max_new_tokens"), 0)  # to cut a text is enough
    yield book, engine
    engine.close()


@pytest.mark.slow
def test_the_ids_are_tiktoken_s(engine: tuple[Book, LibreOffice]) -> None:
    book, office = engine
    tried = texts(book.tokenizer, book.max_bytes)
    assert len(tried) >= 1000
    ids, status = book.named("token_ids"), book.named("status")
    wrong = []
    for text in tried:
        shown, said = office.try_text(text, ids, status)
        found = [int(i) for i in shown[:, 0] if i >= 0]
        if found != book.tokenizer.encode(text) or (said[0, 0] == "ok") != bool(text):
            wrong.append((text, found, said[0, 0]))
    assert not wrong, (len(wrong), wrong[:5])


@pytest.mark.slow
def test_a_vocabulary_as_large_as_gpt_2_s(tmp_path: Path) -> None:
    """GPT-2's own is not everywhere; one of its size is: 50,000 merges, and ids up to 50,256."""
    book = Book(build(tmp_path, made_up(tmp_path / "vocabulary", 50_000), 50257, 64))
    found, wanted = [], []
    with closing(LibreOffice(book)) as office:
        office.write(book.named("max_new_tokens"), 0)
        for text in words(book.tokenizer, 50):
            shown = office.try_text(text[:64], book.named("token_ids"))[0]
            found.append([int(i) for i in shown[:, 0] if i >= 0])
            wanted.append(book.tokenizer.encode(text[:64]))
    assert found == wanted
    assert max(map(max, wanted)) > 49_000


@pytest.mark.slow
def test_the_merges_are_seen(engine: tuple[Book, LibreOffice]) -> None:
    """The last merge of each word leaves its tokens: in GPT-2's vocabulary ␣fun and ology, ␣rein and jury."""
    book, office = engine
    text = " funology reinjury"
    columns = [book.named(f"merge.{part}") for part in ("word", "left", "right", "text", "id", "rank")]
    shown = [column[:, 0].tolist() for column in office.try_text(text, *columns)]
    merges = [merge for merge in zip(*shown, strict=True) if merge[0] != ""]
    way, named = tokenization(text, book.tokenizer), book.tokenizer.shown
    assert merges == [(m.word, named(m.left), named(m.right), named(m.id), m.id, m.rank) for m in way.merges]
    if book.config.vocab_size == 50257:
        assert {"␣fun", "ology", "␣rein", "jury"} <= {merge[3] for merge in merges}
        assert way.ids == book.tokenizer.encode(text)
        assert [named(i) for i in way.ids] == ["␣fun", "ology", "␣rein", "jury"]
