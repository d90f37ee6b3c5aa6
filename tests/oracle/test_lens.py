"""The logit lens: its bands against a computation of their own, its edges, and LibreOffice on the case to show."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from conftest import MICRO, run_xlgpt

import xlgpt
from xlgpt.compiler.layout import Room, lay_out
from xlgpt.compiler.settings import defaults
from xlgpt.engines import FormulasLibrary
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.errors import UsageError
from xlgpt.model.checkpoint import Model, load
from xlgpt.model.reference import forward
from xlgpt.oracle.values import expected
from xlgpt.workbook.book import Book

TUESDAY = "If today is Tuesday, tomorrow is"
Make = Callable[..., Path]
Values = dict[str, Any]
NOTHING: Values = {}


@pytest.fixture(scope="module")
def lens_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lens") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", prompt=TUESDAY, context=8, max_bytes=48, sheets="lens")
    return path


def shown(prompt: str, settings: Values = NOTHING, model: Model | None = None) -> Values:
    """What the reference says the sheet shows."""
    model = model or load("tiny")
    layout = lay_out(model.config, Room(16, 64, 8, ("lens",)), len(model.tokenizer.merges))
    return expected(
        prompt, model, layout, defaults(layout, is_large=False).changed({"max_new_tokens": 0}).changed(settings)
    )


def cut_short(model: Model, blocks: int, prompt: str) -> np.ndarray:
    """The logits of a model that really ends after so many blocks."""
    config = replace(model.config, n_layer=blocks)
    return forward(model.tokenizer.encode(prompt), model.weights, config)["logits"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_a_column_is_what_a_model_of_fewer_blocks_says(blocks: int) -> None:
    model = load("tiny")
    logits = cut_short(model, blocks, TUESDAY)
    values = shown(TUESDAY)
    assert values["lens.id"][:, blocks].tolist() == logits.argmax(axis=-1).tolist()
    assert np.allclose(values["lens.logit"][:, blocks].astype(float), logits.max(axis=-1))
    best = np.argsort(-logits[-1])[:5]
    assert (65535 - values["lens.best"][blocks] % 65536).tolist() == best.tolist()
    assert np.allclose(values["lens.best_logit"][blocks].astype(float), logits[-1][best])
    target = model.tokenizer.encode(" Wednesday")[0]
    shares = np.exp(logits[-1]) / np.exp(logits[-1]).sum()
    assert np.isclose(values["lens.target_probability"][0, blocks], shares[target])
    assert values["lens.target_rank"][0, blocks] == 1 + np.sum(shares > shares[target])


def test_the_last_column_is_the_answer() -> None:
    values = shown(TUESDAY)
    assert values["lens.token"][-1, -1] == "␣Wednesday"
    assert np.allclose(values["lens.best_probability"][:, -1], values["top.probability"][:5])
    assert values["lens.best_token"][:, -1].tolist() == values["top.token"][:5].tolist()
    assert np.allclose(values["lens.vector"][-1], values["ln_final.normalized"][-1])


def test_the_target_rises_from_nowhere_to_the_first_place() -> None:
    ranks = shown(TUESDAY)["lens.target_rank"][0]
    assert ranks[0] > 100
    assert ranks[-1] == 1


def test_transformers_agrees() -> None:
    """`hidden_states` of a checkpoint that transformers saved: before each block, and behind the final layer norm."""
    truth, model = np.load(MICRO / "expected.npz"), load(str(MICRO))
    ids = truth["ids"].ravel().tolist()
    layout = lay_out(model.config, Room(len(ids), 64, 1, ("lens",)), len(model.tokenizer.merges))
    from xlgpt.oracle.views import Run
    from xlgpt.oracle.views.lens import lens

    seen = dict(forward(ids, model.weights, model.config))
    values = lens(
        Run(
            model,
            layout,
            defaults(layout, is_large=False).changed({"max_new_tokens": 0}),
            tuple(ids),
            len(ids),
            len(ids),
            len(ids) - 1,
            seen,
        )
    )
    logits = truth["logits"].reshape(len(ids), -1)
    assert values["lens.id"][:, -1].tolist() == logits.argmax(axis=-1).tolist()
    assert np.abs(values["lens.logit"][:, -1] - logits.max(axis=-1)).max() < 1e-5
    states = [state.reshape(len(ids), -1).astype(float) for state in truth["hidden_states"]]
    weight, bias = (model.weights.tensor(f"ln_f.{part}").astype(float) for part in ("weight", "bias"))
    head = model.weights.tensor("wte.weight").astype(float)
    for column, state in enumerate(states[:-1]):
        centred = state - state.mean(axis=-1, keepdims=True)
        spread = np.sqrt(state.var(axis=-1, keepdims=True) + model.config.layer_norm_epsilon)
        scores = (centred / spread * weight + bias) @ head.T
        assert np.abs(values["lens.logit"][:, column] - scores.max(axis=-1)).max() < 1e-5, column


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("␣Wednesday", "ok"),
        (" Wednesday", "ok"),
        (" wednesday", "“ wednesday” is not one token of this model: capital letters matter"),
        (" Wednesday is", "is not one token"),
        ("", "Type the token to follow"),
    ],
)
def test_a_target_is_found_by_its_exact_letters(target: str, sentence: str) -> None:
    values = shown(TUESDAY, {"lens.target": target})
    assert sentence in values["lens.status"][0]
    assert (values["lens.target_rank"][0, -1] == 1) == (sentence == "ok")
    assert values["lens.best_token"][0, -1] == "␣Wednesday"


@pytest.mark.parametrize(("position", "token"), [("last", "␣is"), ("", "␣is"), (3, "␣Tuesday"), (0, "If"), (7, "")])
def test_a_chosen_position(position: int | str, token: str) -> None:
    values = shown(TUESDAY, {"lens.chosen": position})
    assert values["lens.at_token"][0] == token
    assert ("There is no token at position 7" in values["lens.status"][0]) == (position == 7)
    if token:
        row = 6 if position in ("last", "") else position
        assert values["lens.best_token"][0].tolist() == values["lens.token"][row].tolist()


def test_the_grid_leaves_out_what_it_is_told_to() -> None:
    tokens = shown(TUESDAY, {"lens.rows": 2})["lens.token"]
    assert (tokens[:5] == "").all()
    assert (tokens[5:] == shown(TUESDAY)["lens.token"][5:]).all()
    assert (shown(TUESDAY, {"lens.rows": 0})["lens.token"] == "").all()


def test_a_text_for_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match=r"The cell lens.rows holds the text 'some'; put a number there"):
        shown(TUESDAY, {"lens.rows": "some"})


CASES: list[Values] = [
    {},
    {"lens.chosen": 3, "lens.target": " Friday"},
    {"lens.chosen": 7},
    {"lens.rows": 2, "lens.target": " wednesday"},
    {"lens.target": ""},
    {"lens.on": 0},
]


def agrees(engine: Any, book: Book, prompt: str, settings: Values = NOTHING) -> None:
    """Every band of the sheet, calculated, is what the reference says."""
    chosen = book.settings.changed(settings)
    engine.calculate(book.prompt_of(prompt), chosen)
    truth = expected(prompt, book.model, book.layout, chosen)
    for name, placed in book.layout.bands.items():
        if name.startswith("lens.") and not placed.band.is_input:
            calculated = engine.read(book.named(name))
            wanted = truth[name].reshape(len(truth[name]), -1)
            for place, value in np.ndenumerate(calculated):
                want = wanted[place] if place[0] < len(wanted) else ""
                same = value == want if isinstance(want, str) or isinstance(value, str) else np.isclose(value, want)
                assert same, (name, place, value, want)


@pytest.fixture(scope="module")
def library(lens_book: Path) -> FormulasLibrary:
    return FormulasLibrary(Book(lens_book))


@pytest.mark.quick(1)
@pytest.mark.parametrize("settings", CASES)
def test_formulas_calculates_it(library: FormulasLibrary, lens_book: Path, settings: Values) -> None:
    agrees(library, Book(lens_book), TUESDAY, settings)


@pytest.fixture(scope="module")
def office(lens_book: Path) -> Iterator[LibreOffice]:
    engine = LibreOffice(Book(lens_book))
    yield engine
    engine.close()


@pytest.mark.slow
@pytest.mark.quick(1)
@pytest.mark.libreoffice
@pytest.mark.parametrize("settings", CASES)
def test_libreoffice_calculates_it(office: LibreOffice, lens_book: Path, settings: Values) -> None:
    agrees(office, Book(lens_book), TUESDAY, settings)


@pytest.mark.libreoffice
def test_libreoffice_follows_another_prompt(office: LibreOffice, lens_book: Path) -> None:
    agrees(office, Book(lens_book), "The cow says", {"lens.target": " moo"})
    assert office.read(Book(lens_book).named("lens.target_rank"))[0, -1] == 1


@pytest.mark.libreoffice
def test_without_a_token_it_is_empty(office: LibreOffice, lens_book: Path) -> None:
    agrees(office, Book(lens_book), "")


@pytest.mark.slow
def test_check_sees_mistakes(lens_book: Path, tmp_path: Path) -> None:
    """A norm's weight for its bias, another token's embedding, a rank from 0, others."""
    mistakes = {
        "lens.logit": ("ln_f.weight", "ln_f.bias"),
        "lens.best_logit": ("65535-MOD", "65534-MOD"),
        "lens.target_rank": ("1+INDEX", "0+INDEX"),
        "lens.token": ("+1)", "+2)"),
        "lens.id": ("MAX(", "MIN("),
        "lens.grid_best": ("10^7", "10^6"),
        "lens.best_in_slice": (">=", ">"),
    }
    broken = openpyxl.load_workbook(lens_book)
    for column, (name, mistake) in enumerate(mistakes.items()):
        where = Book(lens_book).named(name)
        cell = broken[where.sheet].cell(where.row + 1, where.column + 1 + column)
        if isinstance(cell.value, str):
            cell.value = cell.value.replace(*mistake)
        else:
            cell.value.text = cell.value.text.replace(*mistake)
    broken.save(tmp_path / "broken.xlsx")
    report = xlgpt.check(tmp_path / "broken.xlsx", prompts=(TUESDAY,))
    wrong = {band.name for sheet in report.prompts[0].sheets for band in sheet.bands if band.problem}
    assert {*mistakes, "lens.probability"} <= wrong
    assert all(name.startswith("lens.") for name in wrong)


def test_a_large_model_begins_with_everything_off() -> None:
    model = load("tiny")
    layout = lay_out(model.config, Room(8, 64, 4, ("lens",)), len(model.tokenizer.merges))
    settings = defaults(layout, is_large=True)
    assert settings.number("lens.on") == 0
    assert settings.number("lens.rows") == 1


def test_an_untied_head_is_read_too(make_checkpoint: Make, tmp_path: Path) -> None:
    def untie(tensors: Values) -> None:
        tensors["lm_head.weight"] = tensors["wte.weight"][::-1].copy()

    folder = make_checkpoint(untie, tie_word_embeddings=False)
    path = tmp_path / "untied.xlsx"
    xlgpt.build(path, str(folder), prompt="hello world", context=4, max_bytes=16, sheets="lens")
    report = xlgpt.check(path, prompts=("hello world",))
    assert report.passed, str(report)


def test_an_unknown_sheet_is_refused(tmp_path: Path) -> None:
    done = run_xlgpt("build", tmp_path / "x.xlsx", "--model", "tiny", "--sheets", "lense")
    assert done.returncode
    assert "lens" in done.stderr
    assert not (tmp_path / "x.xlsx").exists()
