"""The real GPT-2 from the Hub: built, checked in LibreOffice, and asked what the talk showed (docs/tour.md).

    pytest -m hub tests/test_hub.py

downloads 550 MB, and takes 8 GB of memory and about half an hour. It has not been run yet, for want of a machine that
reaches the Hub: what stands in GPT2 is what the talk claims. In every test run each function here is run with the
bundled model in GPT-2's place, whose claims its card makes (xlgpt/model/tiny/README.md).
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

import xlgpt
from xlgpt.engines.run import Session
from xlgpt.interp.circuit import Component, Search, asked, read_cases
from xlgpt.interp.sae import read_autoencoder
from xlgpt.model import reference
from xlgpt.model.checkpoint import TINY, Model, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.model.tokenizer import PATTERN
from xlgpt.parallel import Processes

WEEKDAYS = Path(__file__).parents[2] / "examples" / "weekdays.txt"
TEXTS = json.loads((Path(__file__).parents[1] / "texts.json").read_text(encoding="utf-8"))
COEFFICIENTS = range(10, 410, 10)  # how far a feature is turned up, until it says what it stands for


@dataclass(frozen=True)
class Talk:
    """What a model is said to do. `components` are blocks with their MLP, or with all their heads.

    autoencoder: the folder of one that reads the stream before a block, and its feature that turns the phone into
    another thing. encoding: tiktoken's own reading of the model's vocabulary.
    """

    model: str
    goes_on: dict[str, str]
    mlps: tuple[int, ...]
    heads: tuple[int, ...]
    autoencoder: Callable[[], Path]
    feature: int
    encoding: Callable[[], tiktoken.Encoding]


def from_the_hub() -> Path:
    """Block 2 of gpt2-small-res-jb (Bloom 2024)."""
    from huggingface_hub import hf_hub_download

    files = ("cfg.json", "sae_weights.safetensors")
    found = [hf_hub_download("jbloom/GPT2-Small-SAEs-Reformatted", f"blocks.2.hook_resid_pre/{file}") for file in files]
    return Path(found[0]).parent


def tiny_encoding() -> tiktoken.Encoding:
    """The bundled model's files as tiktoken reads GPT-2's."""
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", "")
    ranks = data_gym_to_mergeable_bpe_ranks(str(TINY / "merges.txt"), str(TINY / "vocab.json"))
    return tiktoken.Encoding("tiny", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


GPT2 = Talk(
    model="gpt2",
    goes_on={"Mike is quick. He moves": " quickly", "Mike pulls out his": " phone"},
    mlps=(0, 9),
    heads=(9, 10),
    autoencoder=from_the_hub,
    feature=7650,
    encoding=lambda: tiktoken.get_encoding("gpt2"),
)
STAND_IN = Talk(
    model="tiny",
    goes_on={"Mike is quick. He moves": " quickly", "Mike pulls out his": " phone"},
    mlps=(0,),
    heads=(0,),
    autoencoder=lambda: TINY / "sae",
    feature=2,
    encoding=tiny_encoding,
)
BOTH = [pytest.param(STAND_IN, id="tiny", marks=pytest.mark.slow), pytest.param(GPT2, id="gpt2", marks=pytest.mark.hub)]


@pytest.fixture(scope="module", params=BOTH)
def talk(request: pytest.FixtureRequest) -> Talk:
    found: Talk = request.param
    return found


@pytest.fixture(scope="module")
def model(talk: Talk) -> Model:
    return in_memory(load(talk.model))


@pytest.fixture(scope="module")
def book(talk: Talk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workbook as `xlgpt build` makes it, with one feature of the autoencoder."""
    path = tmp_path_factory.mktemp("hub") / f"{talk.model}.xlsx"
    print(xlgpt.build(path, talk.model, sae=talk.autoencoder(), features=str(talk.feature)))
    return path


@pytest.fixture(scope="module")
def session(book: Path) -> Iterator[Session]:
    with Session(book, "libreoffice", start_timeout=300) as loaded:
        yield loaded


def weekdays(model: Model) -> dict[str, str]:
    """What follows each day, from the file of the circuits."""
    return {case.prompt: model.tokenizer.text(case.target) for case in read_cases(WEEKDAYS, None, model)}


@pytest.mark.libreoffice
def test_libreoffice_calculates_what_numpy_does(book: Path, talk: Talk) -> None:
    report = xlgpt.check(book, engine="libreoffice", model=talk.model, start_timeout=300)
    print("\n".join(report.sentences()))
    report.write_junit(Path(os.environ.get("XLGPT_ARTIFACTS", book.parent)) / f"hub-{talk.model}.xml")
    assert report.passed, list(report.sentences())


@pytest.mark.libreoffice
def test_the_workbook_knows_the_weekdays(session: Session, model: Model) -> None:
    wanted = weekdays(model)
    assert len(wanted) == 7
    assert {prompt: session.answer(prompt, 1).next_token for prompt in wanted} == wanted


@pytest.mark.libreoffice
def test_the_workbook_goes_on_as_in_the_talk(session: Session, talk: Talk) -> None:
    assert {prompt: session.answer(prompt, 1).next_token for prompt in talk.goes_on} == talk.goes_on


@pytest.mark.libreoffice
def test_a_feature_turns_the_phone_into_a_lightsaber(session: Session, talk: Talk, model: Model) -> None:
    """How far it has to be turned up is looked for in NumPy; the workbook then has to say the same."""
    vector = read_autoencoder(talk.autoencoder(), model).vector(talk.feature)
    ids = model.tokenizer.encode("Mike pulls out his")

    def answer(coefficient: float) -> str:
        edits = Edits(block=vector.block or 0, vector=vector.values, at=coefficient)
        best = reference.forward(ids, model.weights, model.config, edits)["logits"][-1].argmax()
        return model.tokenizer.text(int(best))

    said = {coefficient: answer(coefficient) for coefficient in COEFFICIENTS}
    print(f"feature {talk.feature} before block {vector.block}: {said}")
    first = next((coefficient for coefficient, token in said.items() if token == " lightsaber"), None)
    assert first is not None, said
    chosen = {"steering.vector": f"feature {talk.feature}", "steering.coefficient": first}
    assert session.answer("Mike pulls out his", 1, {"steering.on": 0, **chosen}).next_token == " phone"
    assert session.answer("Mike pulls out his", 1, {"steering.on": 1, **chosen}).next_token == " lightsaber"


def test_a_few_components_keep_the_weekdays_right(talk: Talk, model: Model) -> None:
    """With all other heads and MLPs giving their mean over the seven prompts."""
    search = Search(asked(model, read_cases(WEEKDAYS, None, model), "mean"), Processes(1, ""), None)
    all_heads = range(model.config.n_head)
    on = {Component(block) for block in talk.mlps} | {Component(block, i) for block in talk.heads for i in all_heads}
    margins = search.margins(frozenset(on))
    print(f"With {len(on)} of {len(search.components)} on, the right answers lead by {margins.tolist()}")
    assert search.margins(frozenset()).min() < 0, "with nothing on, the answers must not be right"
    assert margins.min() > 0


def test_the_tokenizer_is_tiktoken_s_own(talk: Talk, model: Model) -> None:
    encoding, tokenizer = talk.encoding(), model.tokenizer
    dice = random.Random(0)
    letters = [chr(code) for code in (*range(0x20, 0x250), *range(0x3040, 0x30FF), 0x1F600, 0x200D, 0x301, 9, 10, 13)]
    texts = ["".join(dice.choices(letters, k=dice.randrange(60))) for _ in range(2000)]
    for text in (*TEXTS, *texts):
        ids = encoding.encode_ordinary(text)
        assert [tokenizer.tokens[i] for i in tokenizer.encode(text)] == [
            encoding.decode_single_token_bytes(i) for i in ids
        ]
        if talk is GPT2:
            assert tokenizer.encode(text) == ids


def test_all_weights_are_float32_numbers(model: Model) -> None:
    """A checkpoint that was downloaded is whole: every tensor can be read, and none is of one value."""
    for name in model.weights.shapes():
        tensor = model.weights.tensor(name)
        assert np.isfinite(tensor).all()
        assert np.ptp(tensor) > 0, name
