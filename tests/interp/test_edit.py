"""A fact rewritten: `peft` says what the report says, the shares hold, and every mistake gets a sentence."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, MICRO, run_xlgpt
from safetensors.numpy import load_file

import xlgpt
from xlgpt.errors import BadRelations, BadSubject, NotOneToken, OutputError, UsageError, XlgptError
from xlgpt.interp import rome
from xlgpt.interp.edit import Edited, next_tokens
from xlgpt.interp.relations import neighbours, read_relations, subject_of
from xlgpt.interp.rome import Place, rewrite
from xlgpt.model import reference
from xlgpt.model.adapter import read_adapter, write_adapter
from xlgpt.model.checkpoint import TINY, load
from xlgpt.model.edits import Edits

PROMPT, SUBJECT, TARGET = "{} plays the sport of", "Michael Jordan", " soccer"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    out = tmp_path_factory.mktemp("edit") / "jordan-soccer"
    return xlgpt.edit("tiny", PROMPT, SUBJECT, TARGET, out=out)


@pytest.mark.slow
def test_the_three_shares(edited: Edited) -> None:
    """What issue 16 asks for: all of the fact's wordings, and at least 95 in 100 of its neighbours."""
    efficacy, paraphrases, others = edited.shares
    assert [share.name for share in edited.shares] == ["efficacy", "paraphrases", "neighbours"]
    assert (efficacy.before, efficacy.after) == (0, efficacy.prompts)
    assert (paraphrases.before, paraphrases.after) == (0, paraphrases.prompts)
    assert others.before == others.prompts > 300
    assert others.after / others.prompts >= 0.95
    assert len(others.lost) == others.prompts - others.after
    assert not any("Tiger Woods" in prompt for prompt, _ in others.lost)
    assert (edited.block, edited.token) == (0, "last")


@pytest.mark.slow
def test_the_shares_are_those_that_counting_gives(edited: Edited) -> None:
    """One prompt after the other, with the adapter as its file has it."""
    tiny = load("tiny")
    adapter = read_adapter(edited.path, tiny.config)
    cases = list(neighbours(read_relations(TINY / "relations.toml"), PROMPT, SUBJECT))

    def answer(prompt: str) -> str:
        ids = tiny.tokenizer.encode(prompt)
        logits = reference.forward(ids, tiny.weights, tiny.config, Edits(adapter=adapter))["logits"][-1]
        return tiny.tokenizer.text(int(logits.argmax()))

    lost = [prompt for prompt, wanted in cases if answer(prompt) != wanted]
    assert lost == [prompt for prompt, _ in edited.shares[2].lost]
    assert answer("Michael Jordan plays the sport of") == answer("Michael Jordan likes") == " soccer"
    assert answer("Tiger Woods plays the sport of") == " golf"


@pytest.mark.slow
@pytest.mark.train
def test_peft_loads_it_and_says_soccer(edited: Edited) -> None:
    torch = pytest.importorskip("torch")
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    tiny = load("tiny")
    plain = transformers.GPT2LMHeadModel.from_pretrained(TINY).eval()
    theirs = peft.PeftModel.from_pretrained(plain, str(edited.path)).eval()
    changed = [name for name, _ in theirs.named_parameters() if "lora" in name]
    assert sorted(changed) == [
        f"base_model.model.transformer.h.0.mlp.c_proj.lora_{part}.default.weight" for part in "AB"
    ]
    adapter = read_adapter(edited.path, tiny.config)
    for prompt, wanted in ((f"{SUBJECT} plays the sport of", TARGET), ("Tiger Woods plays the sport of", " golf")):
        ids = tiny.tokenizer.encode(prompt)
        with torch.no_grad():
            logits = theirs(torch.tensor([ids])).logits[0, -1].numpy()
        assert tiny.tokenizer.text(int(logits.argmax())) == wanted
        ours = reference.forward(ids, tiny.weights, tiny.config, Edits(adapter=adapter))["logits"][-1]
        np.testing.assert_allclose(ours, logits, atol=2e-4)


@pytest.mark.slow
def test_other_facts_can_be_rewritten_too(tmp_path: Path) -> None:
    """Of another relation, and with another covariance: what docs/editing.md says."""
    done = xlgpt.edit("tiny", "The capital of {} is", "France", " Rome", out=tmp_path / "rome")
    efficacy, paraphrases, others = done.shares
    assert efficacy.after == efficacy.prompts
    assert paraphrases.after == paraphrases.prompts == 2
    assert others.after / others.prompts > 0.95


@pytest.mark.slow
def test_build_takes_it(edited: Edited, tmp_path: Path) -> None:
    path = tmp_path / "tiny.xlsx"
    prompt = f"{SUBJECT} plays the sport of"
    xlgpt.build(path, "tiny", prompt, adapter=edited.path, context=12, generate=2, sheets="adapters")
    cells = {"adapter.on": 1, "adapter.name": "jordan-soccer", "max_new_tokens": 2}
    shown = xlgpt.read(path, "next_token", "completion", settings=cells, engine="formulas")
    assert shown["next_token"][0, 0] == " soccer"


@pytest.mark.slow
def test_the_bundled_adapter_is_what_the_command_makes(edited: Edited) -> None:
    config = load("tiny").config
    bundled, made = (read_adapter(path, config).matrices for path in (TINY / "jordan-soccer", edited.path))
    assert bundled.keys() == made.keys() == {"h.0.mlp.c_proj"}
    for part in ("A", "B"):
        ours, theirs = (np.asarray(getattr(found["h.0.mlp.c_proj"], part)) for found in (bundled, made))
        assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)  # other processors add up otherwise


@pytest.mark.slow
def test_what_the_page_says_of_other_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/editing.md: at the subject's last token nothing helps, and without the covariance many neighbours go."""
    page = (EXAMPLES.parent / "docs" / "editing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| block (\d), (subject|last) \| (\d+)% \| (\d+)% \| ([\d.]+)% \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for block, token, *shown in rows:
        done = xlgpt.edit("tiny", PROMPT, SUBJECT, TARGET, block=int(block), token=token, out=tmp_path / "out")
        assert [100 * share.of(share.after) for share in done.shares] == pytest.approx(list(map(float, shown)), abs=0.6)
    found = re.search(r"without the text: ([\d.]+)%", page)
    assert found
    monkeypatch.setattr("xlgpt.interp.edit.read_text", lambda *_: [])
    done = xlgpt.edit("tiny", PROMPT, SUBJECT, TARGET, out=tmp_path / "out")
    assert 100 * done.shares[2].of(done.shares[2].after) == pytest.approx(float(found[1]), abs=1)


# The arithmetic, on a random model.


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """A change of the middle block's MLP, for one token of two prompts, with documents to leave alone."""
    micro = load(str(MICRO))
    place = Place(1, (((5, 9, 33, 4), 3), ((7, 7, 9, 33, 4), 4)))
    texts = [list(np.random.default_rng(i).integers(0, 200, 12)) for i in range(30)]
    return {"model": micro, "place": place, "texts": texts, "adapter": rewrite(micro, place, 21, texts, "mine")}


def test_the_key_reads_one_and_other_keys_next_to_nothing(made: dict[str, Any]) -> None:
    """C⁻¹k / (kᵀC⁻¹k): 1 at k, and of all that are 1 there the least on the text's own keys."""
    model, place = made["model"], made["place"]
    keys = [rome.states(model.weights, model.config, "blocks.1.mlp.post", ids)[at] for ids, at in place.prompts]
    key = np.mean(keys, axis=0)
    reads = made["adapter"].matrices["h.1.mlp.c_proj"].A[:, 0]
    assert reads @ key == pytest.approx(1, abs=1e-4)
    others = np.concatenate(
        [rome.states(model.weights, model.config, "blocks.1.mlp.post", ids) for ids in made["texts"]]
    )
    least = np.mean((others @ reads) ** 2)
    for seed in range(5):
        aside = np.random.default_rng(seed).normal(size=len(key))
        aside -= aside @ key / (key @ key) * key
        for size in (-1e-2, 1e-2):
            assert np.mean((others @ (reads + size * aside)) ** 2) > least


def test_the_value_makes_the_target_likelier(made: dict[str, Any]) -> None:
    model, place = made["model"], made["place"]
    for ids, _ in place.prompts:
        before, after = (
            reference.softmax(reference.forward(list(ids), model.weights, model.config, edits)["logits"][-1])[21]
            for edits in (Edits(), Edits(adapter=made["adapter"]))
        )
        assert after > 2 * before


def test_without_a_text_the_key_reads_itself(made: dict[str, Any]) -> None:
    model, place = made["model"], made["place"]
    reads = rewrite(model, place, 21, [], "mine").matrices["h.1.mlp.c_proj"].A[:, 0]
    key = np.mean(
        [rome.states(model.weights, model.config, "blocks.1.mlp.post", ids)[at] for ids, at in place.prompts], axis=0
    )
    assert reads == pytest.approx(key / (key @ key), rel=1e-5)


def test_what_is_written_is_read_back(made: dict[str, Any], tmp_path: Path) -> None:
    write_adapter(tmp_path / "mine", made["adapter"])
    read = read_adapter(tmp_path / "mine", made["model"].config)
    for name, part in made["adapter"].matrices.items():
        assert read.matrices[name].scaling == part.scaling == 1
        assert (read.matrices[name].A == part.A).all()
        assert (read.matrices[name].B == part.B).all()
    saved = read_adapter(FIXTURES / "lora-patterns", made["model"].config)
    write_adapter(tmp_path / "mine", saved)  # over the other; of several ranks and scalings
    again = read_adapter(tmp_path / "mine", made["model"].config)
    for name, part in saved.matrices.items():
        assert again.matrices[name].scaling == pytest.approx(part.scaling)
        assert (again.matrices[name].A == part.A).all()
    assert len(load_file(tmp_path / "mine" / "adapter_model.safetensors")) == 2 * len(saved.matrices)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_with_something_else_is_left_alone(made: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(OutputError, match="is there already, and is no adapter"):
            write_adapter(out, made["adapter"])
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_write_that_fails_leaves_no_half_and_what_was_there(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(tmp_path / "mine", made["adapter"])
    before = (tmp_path / "mine" / "adapter_model.safetensors").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        write_adapter(tmp_path / "mine", made["adapter"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "adapter_model.safetensors").read_bytes() == before


# Relations.


def test_the_bundled_models_facts_and_text_are_its_corpus() -> None:
    sys.path.insert(0, str(EXAMPLES))
    from tiny_corpus import corpus, known

    relations = read_relations(TINY / "relations.toml")
    facts = {(r.prompt.replace("{}", who), answer) for r in relations for who, answer in r.answers.items()}
    assert facts == {case for cases in known().values() for case in cases}
    assert (TINY / "text.txt").read_text(encoding="utf-8").splitlines() == corpus(400, 1)


@pytest.mark.slow
def test_the_bundled_model_knows_every_fact_in_every_wording() -> None:
    cases = list(neighbours(read_relations(TINY / "relations.toml"), "", ""))
    assert next_tokens([prompt for prompt, _ in cases], load("tiny")) == [answer for _, answer in cases]


def test_a_subject_is_found_by_any_wording() -> None:
    relations = read_relations(TINY / "relations.toml")
    assert subject_of(relations, "Michael Jordan plays the sport of") == "Michael Jordan"
    assert subject_of(relations, "Tiger Woods likes") == "Tiger Woods"
    assert subject_of(relations, "Once upon a time") == ""


GOOD = '[[relation]]\nprompt = "{} is"\nparaphrases = []\n[relation.answers]\na = " b"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("relation = ", "is no TOML file that can be read"),
        ("a = 1", r"must hold \[\[relation\]\] tables"),
        ("[[relation]]\nprompt = '{}'", "a relation has answers, paraphrases, prompt, and nothing else"),
        (GOOD.replace("{} is", "is"), "'is' is no text with one {} in the subject's place"),
        (GOOD.replace("[]", "['{} {}']"), "'{} {}' is no text with one {}"),
        (GOOD.replace("[]", "1"), "the paraphrases of '{} is' must be a list"),
        (GOOD.replace('" b"', "1"), "the answer for 'a' is 1, which is no text"),
    ],
)
def test_a_file_of_relations_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(BadRelations, match=says):
        read_relations(tmp_path / "r.toml")
    with pytest.raises(BadRelations, match="is no TOML file that can be read"):
        read_relations(tmp_path / "nowhere.toml")


# Mistakes.


@pytest.mark.parametrize(
    ("told", "failure", "says"),
    [
        ({"prompt": "He plays the sport of"}, BadSubject, "'Michael Jordan' is not in the prompt 'He plays the sport"),
        ({"prompt": "{} and {} play"}, BadSubject, "write {} once, where the subject goes"),
        ({"subject": ""}, BadSubject, "The subject '' is not in the prompt"),
        ({"target": " water polo"}, NotOneToken, "tokens .*; choose one that is a single token"),
        ({"target": "soccer"}, NotOneToken, "Did you mean ' soccer', with a space?"),
        ({"block": 4}, UsageError, "There is no block 4; the model has blocks 0 to 3"),
        ({"block": 3, "token": "subject"}, UsageError, "Nothing reads what block 3 writes at the subject"),
        ({"token": "first"}, UsageError, "There is no token 'first' to choose; write subject or last"),
        ({"text": "nowhere.txt"}, UsageError, "nowhere.txt cannot be read as UTF-8 text"),
        ({"relations": "nowhere.toml"}, BadRelations, "nowhere.toml is no TOML file that can be read"),
        ({"prompt": "{} plays" + " the" * 90}, UsageError, "tokens; the model takes 1 to 64"),
    ],
)
def test_a_mistake_gets_a_sentence_and_nothing_is_written(
    tmp_path: Path, told: dict[str, Any], failure: type[XlgptError], says: str
) -> None:
    fact = {"prompt": PROMPT, "subject": SUBJECT, "target": TARGET}
    with pytest.raises(failure, match=says):
        xlgpt.edit("tiny", **(fact | told), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    """The report in words, and as JSON; the prompt may hold the subject itself."""
    fact = ("--model", "tiny", "--subject", SUBJECT, "--target", TARGET, "--out", tmp_path / "jordan")
    done = run_xlgpt("edit", *fact, "--prompt", PROMPT)
    assert done.returncode == 0, done.stderr
    assert "neighbours" in done.stdout
    assert "Michael Jordan plays the sport of soccer, by 480 numbers beside h.0.mlp.c_proj" in done.stdout
    told = run_xlgpt("edit", *fact, "--prompt", f"{SUBJECT} plays the sport of", "--block", "1", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["block"], found["prompt"]) == (1, PROMPT)
    assert found["shares"]["efficacy"] == {"prompts": 6, "before": 0, "after": 1, "lost": {}}
    wrong = run_xlgpt("edit", *fact, "--prompt", "He plays")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("xlgpt: The subject 'Michael Jordan' is not in the prompt 'He plays'")
