"""The sheet Tracing: the maps of a prompt that was traced, nothing for any other, and a subject of one's own."""

from pathlib import Path

import numpy as np
import pytest
from conftest import MICRO, read_in_python

import xlgpt
from xlgpt.errors import BadSubject, UsageError
from xlgpt.interp.tracing import subject_tokens, trace
from xlgpt.model.checkpoint import load
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill

PROMPT = "The capital of France is"
MAPS = ("trace.resid_post", "trace.mlp_out", "trace.attn_out")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracing") / "tiny.xlsx"
    xlgpt.build(path, "tiny", PROMPT, context=8, generate=2, max_bytes=40, sheets="tracing")
    return path


def test_the_maps_are_what_tracing_finds(book: Path) -> None:
    tiny = load("tiny")
    ids = tiny.tokenizer.encode(PROMPT)
    found = trace(tiny, ids, subject_tokens(PROMPT, "France", tiny.tokenizer))
    shown = read_in_python(book, *MAPS, "trace.token", "trace.answer", "trace.clean", "trace.corrupted")
    assert shown["trace.token"][: len(ids), 0].tolist() == ["The", "␣capital", "␣of", "␣France*", "␣is"]
    assert shown["trace.answer"][0, 0] == "␣Paris"
    assert shown["trace.clean"][0, 0] == pytest.approx(found.clean, abs=1e-6)
    assert shown["trace.corrupted"][0, 0] == pytest.approx(found.corrupted, abs=1e-6)
    for name in MAPS:
        share = (found.restored[name.removeprefix("trace.")] - found.corrupted) / (found.clean - found.corrupted)
        assert shown[name][: len(ids)].astype(float) == pytest.approx(share.T, abs=1e-5)  # [L, T] on its side


def test_another_prompt_of_the_list_has_maps_of_its_own_and_any_other_none(book: Path) -> None:
    names = ("trace.subject", "trace.status", *MAPS)
    kept = [str(text) for text in Book(book).settings.cells["kept.prompts"][:, 0]]
    assert kept[0] == PROMPT
    assert "Michael Jordan plays the sport of" in kept
    assert "Mike is quick. He moves" not in kept, "no relation says what it is about"
    of_jordan = read_in_python(book, *names, prompt="Michael Jordan plays the sport of")
    assert of_jordan["trace.subject"][0, 0] == "Michael Jordan"
    assert "␣basketball" in of_jordan["trace.status"][0, 0]
    assert of_jordan["trace.mlp_out"][6, 0] > 0.9
    of_none = read_in_python(book, *names, prompt="The capital of Spain is")
    assert of_none["trace.status"][0, 0].startswith("This prompt was not traced")
    assert {value for name in names if name != "trace.status" for value in of_none[name].flat} == {""}


def test_off_nothing_is_calculated(book: Path) -> None:
    shown = read_in_python(book, "trace.status", *MAPS, settings={"trace.on": 0})
    assert {value for cells in shown.values() for value in cells.flat} == {""}


@pytest.mark.slow
def test_the_model_stays_as_it_is(book: Path) -> None:
    """No formula of another sheet reads this one."""
    opened = Book(book)
    sheets = [name for name in opened.sheets if name not in (*opened.weights.sheets, "Tracing")]
    texts = [formula.text for name in sheets for formula in opened.cells(name).formulas]
    assert len(texts) > 1000
    assert not any("trace." in text or "Tracing!" in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [pytest.param("libreoffice", marks=pytest.mark.libreoffice), "ironcalc"])
def test_other_programs_show_the_same(book: Path, engine: str) -> None:
    ours = read_in_python(book, *MAPS)
    shown = xlgpt.read(book, *MAPS, engine=engine)
    for name in MAPS:
        assert shown[name][:5].astype(float) == pytest.approx(ours[name][:5].astype(float), abs=1e-9)


def test_a_model_without_facts_is_traced_where_the_subject_is_told(tmp_path: Path) -> None:
    room = {"context": 8, "generate": 2, "max_bytes": 24, "sheets": "tracing"}
    xlgpt.build(tmp_path / "a.xlsx", str(MICRO), "hello world", subject="world", **room)
    shown = read_in_python(tmp_path / "a.xlsx", "trace.subject", "trace.resid_post")
    assert shown["trace.subject"][0, 0] == "world"
    assert shown["trace.resid_post"][-1, -1] == pytest.approx(1)
    with pytest.raises(UsageError, match=r"'tracing' would be empty: .* say with --subject what the prompt is about"):
        xlgpt.build(tmp_path / "b.xlsx", str(MICRO), "hello world", **room)
    with pytest.raises(BadSubject, match="The subject 'moon' is not in the prompt 'hello world'"):
        xlgpt.build(tmp_path / "b.xlsx", str(MICRO), "hello world", subject="moon", **room)
    with pytest.raises(UsageError, match="--subject needs the sheet 'tracing'"):
        xlgpt.build(tmp_path / "b.xlsx", str(MICRO), "hello", subject="hello", sheets="lens")
    assert not (tmp_path / "b.xlsx").exists()


@pytest.mark.slow
def test_noise_that_takes_nothing_away_is_no_error(tmp_path: Path) -> None:
    """A random model whose answers are all as unlikely: nothing is divided by 0."""
    name = "random:n_layer=1,n_embd=2,n_head=1,vocab_size=50257"
    xlgpt.build(tmp_path / "a.xlsx", name, "a b", subject="a", context=4, generate=2, max_bytes=8, sheets="tracing")
    kept = Book(tmp_path / "a.xlsx").settings.cells["kept.likely"]
    assert kept[0, 0] == kept[0, 1], "or else it is held against nothing"
    shown = read_in_python(tmp_path / "a.xlsx", "trace.mlp_out")
    assert set(shown["trace.mlp_out"].flat) == {0}


@pytest.mark.slow
def test_check_finds_a_map_that_is_not_the_models(book: Path, tmp_path: Path) -> None:
    """`--model` traces anew; and the cells of a map are held against what is kept."""
    assert xlgpt.check(book, model="tiny", rows="last").passed
    kept = Book(book).settings.cells["kept.mlp_out"].copy()
    numbers = [value if isinstance(value, str) else value + 0.01 for value in kept.flat]
    fill(book, tmp_path / "wrong.xlsx", {"kept.mlp_out": np.array(numbers, dtype=object).reshape(kept.shape)})
    report = xlgpt.check(tmp_path / "wrong.xlsx", model="tiny", rows="last")
    assert not report.passed
    assert "kept.mlp_out" in str(report.as_dict())
