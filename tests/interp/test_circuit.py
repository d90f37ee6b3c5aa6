"""What each part adds to a logit, and the search for the parts that an answer needs."""

import json
import sys
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import MICRO, run_xlgpt

from xlgpt.errors import UsageError
from xlgpt.interp.attribution import attribute
from xlgpt.interp.circuit import (
    ABLATIONS,
    Ablation,
    Case,
    Circuit,
    Component,
    Runs,
    Search,
    asked,
    case,
    find_circuit,
    one_token,
    read_cases,
)
from xlgpt.interp.mean_activations import component_means
from xlgpt.model.checkpoint import Model, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import forward
from xlgpt.parallel import Processes
from xlgpt.workbook.book import Book

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from tiny_corpus import known

TOMORROW = [(prompt, day) for prompt, day in known()["weekday"] if "tomorrow" in prompt]
IDS = [5, 250, 17, 17, 299, 0, 88, 41]


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def weekdays(tiny: Model) -> tuple[Case, ...]:
    return tuple(case(prompt, day, tiny) for prompt, day in TOMORROW)


@pytest.fixture(scope="module")
def found(tiny: Model, weekdays: tuple[Case, ...]) -> dict[Ablation, Circuit]:
    return {ablate: find_circuit(tiny, weekdays, ablate) for ablate in ABLATIONS}


def edits_of(model: Model) -> list[Edits]:
    c, random = model.config, np.random.default_rng(3)
    switches = {"heads": random.uniform(size=(c.n_layer, c.n_head)).round(1), "mlps": np.linspace(0, 1, c.n_layer)}
    means = {"head_means": random.normal(size=(c.n_layer, c.n_head, c.d_head))}
    steering = {"block": 1, "vector": random.normal(size=c.n_embd), "at": random.normal(size=len(IDS))}
    return [Edits(), Edits(**switches), Edits(**switches, **means), Edits(**steering, **switches, **means)]


# Attribution


@pytest.mark.parametrize("position", [-1, 2])
@pytest.mark.parametrize("untied", [False, True])
def test_the_parts_add_up_to_the_logit(make_checkpoint: Callable[..., Path], position: int, untied: bool) -> None:
    def head(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = tensors["wte.weight"][::-1].copy()

    folder = make_checkpoint(head, tie_word_embeddings=False) if untied else make_checkpoint()
    model = load(str(folder))
    for edits in edits_of(model):
        logits = forward(IDS, model.weights, model.config, edits)["logits"][position]
        for target in (0, 123, 299):
            parts = attribute(IDS, model, target, edits, position)
            assert parts.logit == logits[target]
            assert abs(parts.total - logits[target]) < 1e-9


def test_the_parts_add_up_to_the_logit_of_transformers() -> None:
    model = load(str(MICRO))
    with np.load(MICRO / "expected.npz") as saved:
        ids, logits = saved["ids"].tolist(), saved["logits"]
    for target in (0, int(logits[-1].argmax())):
        assert abs(attribute(ids, model, target).total - logits[-1, target]) < 1e-5


def test_a_part_is_what_goes_when_it_is_taken_from_the_last_stream(tiny: Model) -> None:
    """With the last layer norm's spread frozen: each part subtracted from the stream by hand."""
    ids = tiny.tokenizer.encode("If today is Tuesday, tomorrow is")
    target = one_token(" Wednesday", tiny.tokenizer)
    seen = forward(ids, tiny.weights, tiny.config)
    w = {name: tiny.weights.tensor(name).astype(np.float64) for name in tiny.weights.shapes()}
    stream, scale = seen["blocks.3.resid_post"][-1], seen["ln_final.scale"][-1]

    def logit(x: np.ndarray) -> float:
        return float(((x - x.mean()) / scale * w["ln_f.weight"] + w["ln_f.bias"]) @ w["wte.weight"][target])

    parts = attribute(ids, tiny, target)
    assert abs(parts.logit - logit(stream)) < 1e-9
    assert abs(parts.embed - (parts.logit - logit(stream - seen["embed"][-1]))) < 1e-9
    for layer in range(4):
        assert abs(parts.mlps[layer] - (parts.logit - logit(stream - seen[f"blocks.{layer}.mlp_out"][-1]))) < 1e-9
        for head in range(4):
            rows = w[f"h.{layer}.attn.c_proj.weight"][24 * head : 24 * (head + 1)]
            out = seen[f"blocks.{layer}.attn.z"][-1, head] @ rows
            assert abs(parts.heads[layer, head] - (parts.logit - logit(stream - out))) < 1e-9


# Means


def test_means_are_over_all_positions_of_all_prompts(make_checkpoint: Callable[..., Path]) -> None:
    model = load(str(make_checkpoint()))
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8], [9]]
    means = component_means(prompts, model.weights, model.config)
    runs = [forward(ids, model.weights, model.config) for ids in prompts]
    for layer in range(2):
        z = np.concatenate([run[f"blocks.{layer}.attn.z"] for run in runs])
        assert len(z) == 9
        np.testing.assert_allclose(means.heads[layer], z.mean(axis=0), atol=1e-12)
        mlp = np.concatenate([run[f"blocks.{layer}.mlp_out"] for run in runs])
        np.testing.assert_allclose(means.mlps[layer], mlp.mean(axis=0), atol=1e-12)


# The search


def says(model: Model, one: Case, edits: Edits) -> int:
    return int(forward(list(one.ids), model.weights, model.config, edits)["logits"][-1].argmax())


def with_others_off(model: Model, on: set[Component], cases: tuple[Case, ...], ablate: Ablation) -> Edits:
    """The switches, made here from nothing but the names of what is on."""
    heads = np.array([[float(Component(i, j) in on) for j in range(4)] for i in range(4)])
    mlps = np.array([float(Component(i) in on) for i in range(4)])
    if ablate == "zero":
        return Edits(heads=heads, mlps=mlps)
    runs = [forward(list(one.ids), model.weights, model.config) for one in cases]
    z = [np.concatenate([run[f"blocks.{i}.attn.z"] for run in runs]).mean(axis=0) for i in range(4)]
    out = [np.concatenate([run[f"blocks.{i}.mlp_out"] for run in runs]).mean(axis=0) for i in range(4)]
    return Edits(heads=heads, mlps=mlps, head_means=np.array(z), mlp_means=np.array(out))


@pytest.mark.slow
@pytest.mark.parametrize("ablate", ABLATIONS)
def test_seven_weekdays_need_three_components_and_not_one_less(
    tiny: Model, weekdays: tuple[Case, ...], found: dict[Ablation, Circuit], ablate: Ablation
) -> None:
    best = found[ablate]
    assert len(weekdays) == 7
    assert len(best.components) == 3
    edits = with_others_off(tiny, set(best.components), weekdays, ablate)
    assert all(says(tiny, one, edits) == one.target for one in weekdays)
    np.testing.assert_array_equal(best.edits.heads, edits.heads)
    np.testing.assert_array_equal(best.edits.mlps, edits.mlps)
    everything = [Component(i, j) for i in range(4) for j in (*range(4), None)]
    for smaller in chain.from_iterable(combinations(everything, n) for n in range(3)):
        edits = with_fewer(best.edits, smaller)
        assert any(says(tiny, one, edits) != one.target for one in weekdays), smaller


def with_fewer(edits: Edits, on: tuple[Component, ...]) -> Edits:
    heads = np.array([[float(Component(i, j) in on) for j in range(4)] for i in range(4)])
    mlps = np.array([float(Component(i) in on) for i in range(4)])
    return Edits(heads=heads, mlps=mlps, head_means=edits.head_means, mlp_means=edits.mlp_means)


@pytest.mark.slow
def test_margins_are_those_of_the_prompts_one_by_one(
    tiny: Model, weekdays: tuple[Case, ...], found: dict[Ablation, Circuit]
) -> None:
    best = found["mean"]
    for i, one in enumerate(weekdays):
        for edits, margin in ((best.edits, best.margins[i]), (Edits(), best.full_margins[i])):
            logits = forward(list(one.ids), tiny.weights, tiny.config, edits)["logits"][-1]
            others = np.delete(logits, one.target)
            assert abs(logits[one.target] - others.max() - margin) < 1e-9


@pytest.mark.slow
def test_prompts_of_different_lengths(tiny: Model) -> None:
    cases = tuple(case(prompt, answer, tiny) for prompt, answer in known()["sport"])
    assert len({len(one.ids) for one in cases}) > 1
    found = find_circuit(tiny, cases)
    edits = with_others_off(tiny, set(found.components), cases, "mean")
    assert all(says(tiny, one, edits) == one.target for one in cases)
    for part in found.components:  # none of them is there in vain
        edits = with_others_off(tiny, set(found.components) - {part}, cases, "mean")
        assert any(says(tiny, one, edits) != one.target for one in cases), part


def test_many_components_go_by_halves(make_checkpoint: Callable[..., Path]) -> None:
    """48 components, of which up to half go at once: still right, still none in vain, and far fewer runs."""
    model = load(str(make_checkpoint(n_layer=4, n_head=8, n_embd=64, n_inner=16)))
    prompts = ["hello world", "the the the", " world hello"]
    ids = [model.tokenizer.encode(prompt) for prompt in prompts]
    answers = [int(forward(i, model.weights, model.config)["logits"][-1].argmax()) for i in ids]
    cases = tuple(Case(p, tuple(i), a, "") for p, i, a in zip(prompts, ids, answers, strict=True))
    found = find_circuit(model, cases, "zero")
    assert all(says(model, one, found.edits) == one.target for one in cases)
    assert found.edits.heads is not None
    assert found.edits.mlps is not None
    assert found.edits.heads.sum() + found.edits.mlps.sum() == len(found.components) < 36
    for part in found.components:
        heads, mlps = found.edits.heads.copy(), found.edits.mlps.copy()
        if part.head is None:
            mlps[part.layer] = 0
        else:
            heads[part.layer, part.head] = 0
        assert any(says(model, one, Edits(heads=heads, mlps=mlps)) != one.target for one in cases), part


def test_one_from_outside_may_stand_for_two_inside(
    tiny: Model, weekdays: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up model that answers by two heads or by one MLP; removing alone does not lead from one to the other."""

    def margins(runs: Runs, on: frozenset[Component]) -> np.ndarray:
        edits = runs.edits(on)
        assert edits.heads is not None
        assert edits.mlps is not None
        pair, alone = edits.heads[1, 2] * edits.heads[3, 0], edits.mlps[2]
        return np.array([pair + alone - 0.5 - 0.1 * alone * pair])

    monkeypatch.setattr(Runs, "margins", margins)
    search = Search(asked(tiny, weekdays, "zero"), Processes(1, ""), None)
    pair = frozenset({Component(1, 2), Component(3, 0)})
    assert search.shrunk(pair) == pair
    assert search.swapped(pair) == {Component(2)}


@pytest.mark.slow
def test_inputs_are_the_switches(found: dict[Ablation, Circuit]) -> None:
    best = found["zero"]
    inputs = best.inputs()
    assert np.argwhere(inputs["circuit.heads"]).tolist() == [
        [part.layer, part.head] for part in best.components if part.head is not None
    ]
    assert np.flatnonzero(inputs["circuit.mlps"]).tolist() == [p.layer for p in best.components if p.head is None]


# Prompts and targets


def test_a_file_of_prompts(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("If today is Monday, tomorrow is\t Tuesday\n\nThe cow says\r\n", encoding="utf-8")
    first, second = read_cases(path, " moo", tiny)
    assert (first.prompt, tiny.tokenizer.text(first.target)) == ("If today is Monday, tomorrow is", " Tuesday")
    assert (second.prompt, tiny.tokenizer.text(second.target)) == ("The cow says", " moo")


@pytest.mark.parametrize(
    ("text", "target", "sentence"),
    [
        ("", " moo", "holds no prompt"),
        ("The cow says", None, "has no target"),
        ("The cow says\t", " moo", "has no target"),
        ("The cow says", " rhinoceros", "tokens ("),
        ("The cow says", "moo", "Did you mean ' moo', with a space?"),
        ("\t moo", None, "has 0 tokens"),
        ("cow " * 70, " moo", "the model takes 1 to 64"),
        ("The cow says", " quack", "does not answer ' quack' to 'The cow says'"),
    ],
)
def test_what_cannot_be_asked(tiny: Model, tmp_path: Path, text: str, target: str | None, sentence: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        find_circuit(tiny, read_cases(path, target, tiny))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_such_file_and_no_text(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_cases(tmp_path / "nothing.txt", " moo", tiny)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="no UTF-8 text"):
        read_cases(tmp_path / "bytes", " moo", tiny)


# The command


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"{prompt}\t{day}" for prompt, day in TOMORROW), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_workbook_s_own_weights(
    found: dict[Ablation, Circuit], weekdays: tuple[Case, ...], tiny_book: Path
) -> None:
    assert find_circuit(Book(tiny_book).model, weekdays).components == found["mean"].components


@pytest.mark.slow
def test_command(tiny_book: Path, prompts: Path) -> None:
    done = run_xlgpt("circuit", tiny_book, "--prompts", prompts, "--ablate", "zero")
    assert done.returncode == 0, done.stderr
    assert "3 of 20 components" in done.stdout
    assert done.stdout.count("on ") >= 3
    assert "If today is Tuesday, tomorrow is" in done.stdout
    as_json = json.loads(run_xlgpt("circuit", tiny_book, "--prompts", prompts, "--json").stdout)
    assert len(as_json["components"]) == 3
    assert as_json["ablate"] == "mean"


def test_command_with_a_target_of_two_tokens(tiny_book: Path, prompts: Path, tmp_path: Path) -> None:
    prompts.write_text("The cow says\n", encoding="utf-8")
    done = run_xlgpt("circuit", tiny_book, "--prompts", prompts, "--target", " moo moo")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("xlgpt: The target ' moo moo' is 2 tokens (' moo' + ' moo')")
    assert done.stderr.count("\n") == 1
