"""The template language: what a formula becomes, what the compiler infers, and a sentence for every slip."""

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from xlgpt.compiler import template
from xlgpt.compiler.compile import formulas
from xlgpt.compiler.layout import Layout, lay_out
from xlgpt.compiler.references import Coordinate, Product, Reference, Slip, parse
from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import defaults
from xlgpt.compiler.template import Matmul, Room
from xlgpt.errors import TemplateError
from xlgpt.model.config import GPT2Config

CONFIG = GPT2Config(n_layer=2, n_embd=8, n_head=2, n_positions=16, vocab_size=1300, n_inner=32)
VIEWS = ("anatomy", "attention", "lens", "facts", "tracing", "features", "circuit", "steering", "proof")
Change = Callable[[str, str, str], Path]


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Replaces some text in a copy of a template, once."""
    folder = tmp_path / "templates"
    shutil.copytree(template.folder(), folder)
    monkeypatch.setattr(template, "folder", lambda: folder)

    def changed(name: str, old: str, new: str) -> Path:
        path = folder / f"{name}.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return changed


def compiled(matmul: Matmul = "mmult", views: tuple[str, ...] = VIEWS) -> dict[str, list[str]]:
    """Every formula of every band."""
    layout = laid_out(matmul, views)
    return {p.band.name: [f.text for f in formulas(layout, s, p)] for s in layout.sheets for p in s.bands}


def laid_out(matmul: Matmul = "mmult", views: tuple[str, ...] = VIEWS) -> Layout:
    layout = lay_out(
        CONFIG, Room(4, 8, 2, views, matmul, vectors=1, features=2, proven=2, traced=2, traced_tokens=3), 10
    )
    defaults(layout, is_large=False)
    return layout


# Parsing.


def test_a_formula_is_parsed_once_into_parts() -> None:
    parts = parse("({a.b[:row, head-1]}+{x @ y})*{column+2}")
    assert parts == (
        "(",
        Reference(("a.b",), (Coordinate("row", 0, True), Coordinate("head", -1)), "a.b[:row, head-1]"),
        "+",
        Product(Reference(("x",), (), "x"), Reference(("y",), (), "y"), "x @ y"),
        ")*",
        Coordinate("column", 2),
    )
    assert parse("{blocks.{layer-1}.z[:]}")[0] == Reference(
        ("blocks.", Coordinate("layer", -1), ".z"), (Coordinate(upto=True),), "blocks.{layer-1}.z[:]"
    )
    assert parse("{a}+{a}") is parse("{a}+{a}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{a", "has a brace that no other belongs to, at '{a'"),
        ("a}", "has a brace that no other belongs to, at 'a}'"),
        ("{a[row}", "has a bracket that is not closed, in {a[row}"),
        ("{}", "holds {}, which names nothing"),
        ("{a @ b @ c}", "holds {b @ c}, which names nothing"),
        ("{a[across]}", "picks [across] in {a[across]}; pick with row, column, part, layer, head, slice"),
        ("{a[1, 2]}", "picks [1] in {a[1, 2]}"),
        ("{a[row, row, row, row]}", "there are rows, columns and parts of a column, and no more"),
    ],
)
def test_what_cannot_be_parsed(text: str, words: str) -> None:
    with pytest.raises(Slip, match=re.escape(words)):
        parse(text)


# What the compiler makes of it.


def test_two_products_in_one_formula(change: Change) -> None:
    """As dot products, both were the first."""
    change(
        "model/block", "{attn.z @ attn.c_proj.weight}+", "{attn.z @ attn.c_proj.weight}+{ln1.normalized @ attn.W_V}+"
    )
    both = compiled(views=())["blocks.0.attn_out"][0]
    assert re.search(r"MMULT\(\w+:\w+,h.0.attn.c_proj.weight\)\+MMULT\(\w+:\w+,blocks.0.attn.W_V\)\+h.0", both)
    found = compiled("sumproduct", ())
    first, second = re.findall(r"TRANSPOSE\((\w+:\w+)\)", found["blocks.0.attn_out"][0])
    layout = laid_out("sumproduct", ())
    for name, cells, weight, rows in (
        ("blocks.0.attn_out.product", first, "h.0.attn.c_proj.weight", "blocks.0.attn.z"),
        ("blocks.0.attn_out.product2", second, "blocks.0.attn.W_V", "blocks.0.ln1.normalized"),
    ):
        assert layout.names[name].columns(0, 1).a1 == cells
        column = re.sub(r"([A-Z]+)", r"\1$", layout.names[f"{rows}.column"].columns(0, 1).a1)
        assert f"SUMPRODUCT({column},INDEX({weight},0," in found[name][0]
    assert {p.name: (p.rows, p.weight) for p in layout.products if ".0.attn_out" in p.name} == {
        "blocks.0.attn_out.product": ("blocks.0.attn.z", "h.0.attn.c_proj.weight"),
        "blocks.0.attn_out.product2": ("blocks.0.ln1.normalized", "blocks.0.attn.W_V"),
    }


def test_how_far_a_formula_reaches_follows_from_what_it_names() -> None:
    bands = {name: placed.band for name, placed in laid_out().bands.items()}
    reach = {
        "blocks.0.attn.q": "row",
        "blocks.0.attn.pattern": "head",
        "embed": "cell",
        "next.largest": "head",
        "lens.grid_best": "cell",
        "attention.looks": "cell",
        "circuit.way": "row",
        "probabilities": "band",
        "logits": "slice",
    }
    assert {name: bands[name].per for name in reach} == reach


def test_no_two_formulas_of_a_column_are_alike_where_libreoffice_could_crash() -> None:
    """Those that read a range of calculated cells, or depend on a row above; array formulas it joins never."""
    found = compiled()
    assert "$" in found["step.turn"][2]
    assert "$" in found["tokens"][1].replace("$A", "")
    assert "$" not in found["char.code"][1]
    assert "$" not in found["blocks.0.attn.q"][1].replace("$A", "")


# Slips: each names the file, the band and the key.


SLIPS = [
    (
        "model/block",
        "{resid_mid}+{mlp_out}",
        "{resid}+{mlp_out}",
        "the formula of blocks.0.resid_post names {resid}, w",
    ),
    ("model/block", "{resid_mid}+{mlp_out}", "{resid_mid", "the formula of blocks.0.resid_post has a brace that no"),
    (
        "model/block",
        "{resid_mid}+{mlp_out}",
        "{resid_mid[head]}",
        "the formula of blocks.0.resid_post names {head}, of",
    ),
    ("model/block", "{resid_mid}+{mlp_out}", "{text.x}", "the formula of blocks.0.resid_post names {text.x}, whic"),
    ("model/block", "{resid_mid}+{mlp_out}", "{part}", "the formula of blocks.0.resid_post names {part}, of which"),
    (
        "model/block",
        "{attn.v[:row, head]}",
        "{attn.v[:row, :row]}",
        "the formula of blocks.0.attn.z, with what circuit",
    ),
    ("model/block", "{attn.v[:row, head]}", "{ln_1.bias[row, head, row]}", "ln_1.bias has 2 dimensions"),
    ("model/block", 'gelu_new = "', 'gelu_old = "', "has no text for the activation_function gelu_new"),
    (
        "model/generate",
        "first   = 'IF({written.id}",
        "first   = 'IF({written.ix}",
        "the first of written.before names {wr",
    ),
    ("model/embeddings", 'format  = "signed"', 'formst  = "signed"', "band embed has the unknown key 'formst'; it"),
    (
        "model/embeddings",
        'format  = "signed"',
        'format  = "sign"',
        "band embed: the format 'sign' is none; it is 'number'",
    ),
    ("model/embeddings", 'format  = "signed"', 'per = "cell"', "band embed has the unknown key 'per'"),
    ("model/embeddings", 'title   = "Token embedding"\n', "", "band embed lacks the key 'title'"),
    (
        "model/embeddings",
        '"token", "n_embd"',
        '"token", "n_emb"',
        "the shape of embed is none. A template has the dimen",
    ),
    ("model/embeddings", '"token", "n_embd"', '"token", 2.5', "band embed: the shape ['token', 2.5] is none; it i"),
    ("model/embeddings", 'format  = "signed"', "guard = 1", "band embed: the guard 1 is none; it is true or false"),
    ("model/embeddings", 'format  = "signed"', 'at = "under"', "band embed: the at 'under' is none; it is below o"),
    ("model/embeddings", 'format  = "signed"', 'colour = "embd"', "the colour of embed is 'embd', which is no band"),
    ("model/embeddings", '"pos_embed"', '"embed"', "band embed: another one has the same name"),
    ("model/embeddings", "forward = true", "forwards = true", "has the unknown key 'forwards'"),
    (
        "model/generate",
        'default = "{new_tokens}"',
        'default = "{tokens}"',
        "the default of max_new_tokens is '{tokens}', wh",
    ),
    (
        "views/attention",
        'list    = "n_head"',
        'list    = "heads"',
        "the list of attention.head is 'heads', which is nei",
    ),
    (
        "views/attention",
        'of   = "n_layer"',
        'of   = "n_embd"',
        "[each.pattern] needs a text, and of, which is one of n",
    ),
    (
        "views/proof",
        'views   = ["facts"]',
        'views   = ["fact"]',
        "the views of proof.changed.facts has 'fact', which",
    ),
    ("views/lens", "best_id     = ", "best_id     = 3 #", "[text] may hold nothing but texts"),
    ("views/features", 'uses  = ["best"]', 'uses = ["bst"]', "the uses 'bst' is no file of "),
    ("views/features", 'uses  = ["best"]', 'uses = "best"', "the uses 'best' is none; it is a list of a text"),
    ("views/lens", 'scores      = "', 'score = "', "formula of lens.best_in_slice names {text.scores}, which no table"),
    ("views/lens", 'scores      = "', 'codes = "7"\nscores = "', "[text] has codes, which "),
    ("views/shared/best", "[text]", "[texts]", "has the unknown key 'texts'; it may have choice, each, text, say"),
    ("views/shared/best", 'codes   = "', 'codes = 7 #"', "[text] may hold nothing but texts"),
    ("views/facts", "{say.nothing_ablated}", '""', "[say] has nothing_ablated, which no formula of facts.toml"),
    ("views/shared/place", "no_block =", "no_layer =", "[say] has no_layer, which no formula of attention.toml"),
    ("model/block", "{resid_mid}+{mlp_out}", "{say.x}", "of blocks.0.resid_post names {say.x}, which no table [say]"),
    ("model/generate", 'ended          = "', 'ended = 7 #"', "[say] may hold nothing but texts"),
    (
        "views/steering",
        "before block {at_block}.",
        "before {at_block.",
        "the formula of steering.status has a brace th",
    ),
    (
        "views/steering",
        "before block {at_block}.",
        "before {at_blok}.",
        "formula of steering.status names {at_blok}, wh",
    ),
    ("views/lens", 'at     = "lens.token"', 'at     = "K14"', "the at 'K14' names no band of its sheet"),
    ("views/lens", '["lens.target_rank"]', '["lens.rank"]', "draws lens.rank, which is no band"),
    ("views/circuit", 'band  = "blocks', 'bind  = "blocks', "has the unknown key 'bind'; it may have band, add, a"),
    (
        "views/circuit",
        "*N({circuit.heads[",
        "*N({circuit.head[",
        "the formula of blocks.0.attn.z, with what circuit.toml",
    ),
    (
        "model/block",
        'of      = "h.{layer}.attn.c_attn.weight"',
        'of = "x"',
        "slice blocks.0.attn.W_Q: the of 'x' is no wei",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), SLIPS)
def test_a_slip_names_file_band_and_key(change: Change, name: str, old: str, new: str, words: str) -> None:
    path = change(name, old, new)
    with pytest.raises(TemplateError) as raised:
        compiled()
    said = str(raised.value)
    assert words in said
    assert str(path) in said or "with what circuit.toml adds" in said
    assert said.endswith(".")
    assert "\n" not in said


def test_a_sentence_joins_words_and_values(change: Change) -> None:
    """A quote is doubled, a number that is known stands among the words, two values have nothing between them."""
    change(
        "views/facts",
        '"Nothing is ablated."',
        "'{facts.at}{at_block} of \"{n_layer}\" blocks, {text.strongest}{last}.'",
    )
    said = 'facts.at&facts.at_block&" of ""2"" blocks, "&MIN(INT(facts.strongest),32)&"1."'
    assert said in compiled()["facts.status"][0]
    assert say("views/facts", "nothing_ablated", at=3, at_block=1.0, n_layer=2, strongest=0.5, last=1) == (
        '31 of "2" blocks, 0.51.'
    )


def test_a_sentence_that_is_asked_for_and_not_there(change: Change) -> None:
    path = change("views/facts", "nothing_ablated", "ablated_nothing")
    change("views/facts", "{say.nothing_ablated}", "{say.ablated_nothing}")
    with pytest.raises(TemplateError, match=re.escape(f"{path}: [say] has no nothing_ablated, which a part of xlgpt")):
        say("views/facts", "nothing_ablated")


@pytest.mark.parametrize(
    ("values", "given"),
    [({}, "nothing"), ({"ablate": 7}, "ablate"), ({"ablate": 7, "at_block": 1, "at": 1}, "ablate, at")],
)
def test_values_that_are_not_those_of_a_sentence(values: dict[str, int], given: str) -> None:
    words = rf"facts\.toml: the neuron_ablated of \[say\] names ablate, at_block; what computes in NumPy knows {given}"
    with pytest.raises(TemplateError, match=words):
        say("views/facts", "neuron_ablated", **values)


def test_numpy_says_each_sentence_of_the_templates_and_knows_what_it_names() -> None:
    """Whether the case that a sentence is for is ever calculated or not."""
    package = Path(template.__file__).parents[1]
    said: dict[str, set[str]] = {}
    for source in [*(package / "oracle").rglob("*.py"), package / "workbook" / "home.py"]:
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "say":
                file, key = (ast.literal_eval(one) for one in call.args)
                values = {str(keyword.arg): "" for keyword in call.keywords}
                say(file, key, **values)
                said.setdefault(file, set()).add(key)
    files = [*template.read(template.folder() / "sheets.toml")["sheets"], "home"]
    there = {file: set(template.tables(template.folder() / f"{file}.toml").says) for file in files}
    assert said == {file: keys for file, keys in there.items() if keys}


def test_a_list_that_is_none(change: Change) -> None:
    path = change("sheets", "sheets = [", "sheet = [")
    with pytest.raises(TemplateError, match=re.escape(f"{path} needs a list of sheets")):
        template.stages(CONFIG, ())


def test_a_file_that_is_not_there(change: Change) -> None:
    change("sheets", '"model/argmax"', '"model/argmin"')
    with pytest.raises(TemplateError, match=r"argmin\.toml cannot be read"):
        template.stages(CONFIG, ())
