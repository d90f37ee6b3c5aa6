"""Causal tracing: held against a run of the model written out anew, and against `transformers` with hooks."""

from typing import Any

import numpy as np
import pytest
from conftest import MICRO

from xlgpt.errors import BadSubject
from xlgpt.interp.tracing import DEVIATIONS, SEED, around, subject_tokens, trace
from xlgpt.model import reference
from xlgpt.model.checkpoint import TINY, Model, load

IDS = [5, 250, 17, 99, 0, 88]
SUBJECT = range(1, 3)
SAMPLES = 3


@pytest.fixture(scope="module")
def micro() -> Model:
    return load(str(MICRO))


def noise(model: Model) -> np.ndarray:
    """What the docstring says: normal, seeded, three times as wide as the numbers of wte."""
    wide = DEVIATIONS * model.weights.tensor("wte.weight").astype(np.float64).std()
    return np.random.default_rng(SEED).normal(0, wide, (SAMPLES, len(SUBJECT), model.config.n_embd))


def test_the_stream_is_put_back_as_a_second_model_would_have_it(micro: Model) -> None:
    """Independently: all that follows a block is a model of its own, which is given the mixed stream as embeddings."""
    found = trace(micro, IDS, SUBJECT, SAMPLES)
    clean = reference.forward(IDS, micro.weights, micro.config)
    assert found.answer == clean["logits"][-1].argmax()
    assert found.clean == pytest.approx(reference.softmax(clean["logits"][-1]).max())

    class Rest:
        """The blocks behind one, in a model without token vectors of its own."""

        def __init__(self, first: int, stream: np.ndarray):
            self.first, self.stream = first, stream

        def tensor(self, name: str) -> np.ndarray:
            if name == "wte.weight":
                return self.stream
            if name == "wpe.weight":
                return np.zeros_like(micro.weights.tensor(name))
            parts = name.split(".")
            if parts[0] == "h":
                parts[1] = str(int(parts[1]) + self.first)
            return micro.weights.tensor(".".join(parts))

    def likely(stream: np.ndarray, first: int) -> float:
        from dataclasses import replace

        config = replace(micro.config, n_layer=micro.config.n_layer - first)
        rest = reference.forward(list(range(len(IDS))), Rest(first, stream), config)
        state = rest[f"blocks.{config.n_layer - 1}.resid_post"] if config.n_layer else stream
        scale = np.sqrt(state.var(axis=-1, keepdims=True) + config.layer_norm_epsilon)
        normal = (state - state.mean(axis=-1, keepdims=True)) / scale
        final = normal * micro.weights.tensor("ln_f.weight") + micro.weights.tensor("ln_f.bias")
        logits = final @ micro.weights.tensor("wte.weight").T.astype(np.float64)
        return float(reference.softmax(logits[-1])[found.answer])

    start = clean["embed"] + clean["pos_embed"]
    spoilt = np.repeat(start[None], SAMPLES, axis=0)
    spoilt[:, SUBJECT.start : SUBJECT.stop] += noise(micro)
    assert found.corrupted == pytest.approx(np.mean([likely(stream, 0) for stream in spoilt]))
    for token in range(len(IDS)):
        mixed = []
        for stream in spoilt:
            behind = reference.forward(list(range(len(IDS))), Rest(0, stream), micro.config)["blocks.0.resid_post"]
            behind[token] = clean["blocks.0.resid_post"][token]
            mixed.append(likely(behind, 1))
        assert found.restored["resid_post"][0, token] == pytest.approx(np.mean(mixed))


@pytest.mark.slow
@pytest.mark.train
def test_transformers_with_hooks_finds_the_same(micro: Model) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(MICRO, torch_dtype=torch.float64).eval()
    found = trace(micro, IDS, SUBJECT, SAMPLES)
    added = torch.tensor(noise(micro))
    parts = {
        "resid_post": lambda block: block,
        "attn_out": lambda block: block.attn,
        "mlp_out": lambda block: block.mlp,
    }

    def run(samples: int, hooks: dict[Any, Any]) -> Any:
        handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
        with torch.no_grad():
            logits = theirs(torch.tensor([IDS] * samples)).logits[:, -1]
        for handle in handles:
            handle.remove()
        return logits.softmax(-1)[:, found.answer].mean().item()

    def spoil(_module: Any, _args: Any, out: Any) -> Any:
        out = out.clone()
        out[:, SUBJECT.start : SUBJECT.stop] += added
        return out

    def put_back(state: Any, token: int) -> Any:
        def hook(_module: Any, _args: Any, out: Any) -> Any:
            whole = out[0] if isinstance(out, tuple) else out
            whole = whole.clone()
            whole[:, token] = state[token]
            return (whole, *out[1:]) if isinstance(out, tuple) else whole

        return hook

    wte = theirs.transformer.wte
    assert run(SAMPLES, {wte: spoil}) == pytest.approx(found.corrupted, rel=1e-6)
    clean = reference.forward(IDS, micro.weights, micro.config)
    for kind, part in parts.items():
        for layer, block in enumerate(theirs.transformer.h):
            state = torch.tensor(clean[f"blocks.{layer}.{kind}"])
            for token in range(len(IDS)):
                seen = run(SAMPLES, {wte: spoil, part(block): put_back(state, token)})
                assert seen == pytest.approx(found.restored[kind][layer, token], rel=1e-6), (kind, layer, token)


def test_all_put_back_is_the_answer_and_the_last_block_is_read_at_the_end_only(micro: Model) -> None:
    found = trace(micro, IDS, SUBJECT, SAMPLES)
    assert found.restored["resid_post"][-1, -1] == pytest.approx(found.clean)
    assert found.restored["resid_post"][-1, :-1] == pytest.approx(found.corrupted)
    assert found.restored["mlp_out"][0, 0] == pytest.approx(found.corrupted), "before the subject nothing was spoilt"


def test_a_window_puts_back_several_blocks() -> None:
    assert [list(around(i, 2, 4)) for i in range(4)] == [[0], [0, 1], [1, 2], [2, 3]]
    assert [list(around(i, 3, 4)) for i in range(4)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]
    assert [list(around(i, 1, 4)) for i in range(4)] == [[0], [1], [2], [3]]


def test_where_the_bundled_model_has_its_facts() -> None:
    """docs/tracing.md: at the end of the prompt, in the first block, whose attention has just fetched the subject."""
    tiny = load(str(TINY))
    text = "Michael Jordan plays the sport of"
    tokens = subject_tokens(text, "Michael Jordan", tiny.tokenizer)
    found = trace(tiny, tiny.tokenizer.encode(text), tokens, SAMPLES)
    assert found.clean > 0.99
    assert found.corrupted < 0.1
    places = [tokens[-1], len(found.ids) - 1]
    assert found.decisive(range(4), places) == (0, len(found.ids) - 1)
    assert found.restored["attn_out"][0, -1] > 0.9
    assert found.restored["mlp_out"][0, -1] > 0.9
    assert found.restored["mlp_out"][:, tokens[-1]].max() < 0.1


@pytest.mark.parametrize(
    ("text", "subject", "shown"),
    [
        ("Michael Jordan plays the sport of", "Michael Jordan", ["M", "ichael", "␣Jordan"]),
        ("The capital of France is", "France", ["␣France"]),
        ("The capital of France is", "ance", ["␣France"]),
        ("é is", "é", ["Ã", "©"]),
    ],
)
def test_the_tokens_of_a_subject(text: str, subject: str, shown: list[str]) -> None:
    tiny = load(str(TINY))
    ids, found = tiny.tokenizer.encode(text), subject_tokens(text, subject, tiny.tokenizer)
    if text[0] == "é":
        assert found == range(0, 2)
    else:
        assert [tiny.tokenizer.shown(ids[i]) for i in found] == shown


@pytest.mark.parametrize("subject", ["Spain", "france", ""])
def test_a_subject_that_is_not_there(subject: str) -> None:
    with pytest.raises(BadSubject, match="is not in the prompt 'The capital of France is'"):
        subject_tokens("The capital of France is", subject, load(str(TINY)).tokenizer)
