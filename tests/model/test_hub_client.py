"""Downloads by the Hub's real client, from a server on this machine; `xlgpt build` as a user runs it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import CONFIG, random_tensors, run_xlgpt, write_checkpoint
from hub_server import Hub, Trouble, serving
from safetensors.numpy import load_file, save_file

from xlgpt.model.checkpoint import GPT2, load
from xlgpt.workbook.book import Book

NAME = "someone/gpt2-x"
PINNED = "607a30d783dfa663caf39e06633721c8d4cfcd7e"  # openai-community/gpt2's last commit on the Hub
NOBODY = "http://127.0.0.1:9"  # where no server listens
NEEDED = ["config.json", "vocab.json", "merges.txt", "README.md", "model.safetensors"]
SMALL = ["--context", "2", "--max-bytes", "8", "--sheets", "none"]  # quickly built
Build = Callable[..., CompletedProcess[str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with one model, which also has files that nobody needs."""
    folder = write_checkpoint(tmp_path / "there")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    for name in ("pytorch_model.bin", "tf_model.h5", "tokenizer.json", "model.fp16.safetensors", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    with serving(Hub({NAME: folder, GPT2: folder}, {GPT2: PINNED})) as hub:
        yield hub


@pytest.fixture
def build(hub: Hub, tmp_path: Path) -> Build:
    """A function that runs `xlgpt build` in a process of its own, with an empty cache at first."""
    (tmp_path / "desk").mkdir()

    def run(model: str = NAME, **environment: str) -> CompletedProcess[str]:
        hub.requests.clear()
        command = ["build", tmp_path / "desk" / "out.xlsx", "--model", model, "--prompt", "hello"]
        return run_xlgpt(*command, *SMALL, env=hub.settings(tmp_path / "home") | environment)

    return run


def succeeds(done: CompletedProcess[str], tmp_path: Path) -> Book:
    assert done.returncode == 0, done.stderr
    book = Book(tmp_path / "desk" / "out.xlsx")
    wanted = random_tensors(CONFIG)
    assert set(book.weights.shapes()) == set(wanted)
    for name, tensor in wanted.items():
        assert np.array_equal(book.weights.tensor(name).astype(np.float32), tensor), name
    return book


def fails(done: CompletedProcess[str], tmp_path: Path) -> str:
    """The sentence. The Hub's client may have warned before that it tries again."""
    assert (done.returncode, done.stdout) == (1, ""), done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.count("xlgpt: ") == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("xlgpt: ")
    assert sentence.endswith(".")
    assert not list((tmp_path / "desk").iterdir())
    return sentence.removeprefix("xlgpt: ")


def test_a_model_is_downloaded_once(hub: Hub, build: Build, tmp_path: Path) -> None:
    book = succeeds(build(), tmp_path)
    assert book.model.licence == "apache-2.0"
    assert book.model.source == f"https://huggingface.co/{NAME}"
    assert sorted(hub.fetched()) == sorted(NEEDED)
    succeeds(build(), tmp_path)
    assert set(hub.requests) == {("HEAD", f"{NAME}/resolve/main/config.json")}


def test_gpt2_is_that_of_a_pinned_commit(hub: Hub, build: Build, tmp_path: Path) -> None:
    book = succeeds(build("gpt2"), tmp_path)
    assert sorted(hub.fetched()) == sorted(NEEDED)
    assert all(PINNED in path or path.startswith("lfs") for _, path in hub.requests)
    assert PINNED in book.model.source
    succeeds(build("gpt2"), tmp_path)
    assert hub.requests == []


def test_a_new_commit_is_seen(hub: Hub, build: Build, tmp_path: Path) -> None:
    succeeds(build(), tmp_path)
    hub.commits[NAME] = "f" * 40
    succeeds(build(), tmp_path)
    assert hub.fetched() == []  # the files are the same, and the client knows them by their ETag
    assert {path.split("/resolve/")[1][:4] for _, path in hub.requests} == {"main", "ffff"}


@pytest.mark.quick(1)
@pytest.mark.parametrize("way", ["HF_HUB_OFFLINE", "gone", "silent", "error"])
def test_from_the_cache_where_the_hub_does_not_answer(hub: Hub, build: Build, tmp_path: Path, way: str) -> None:
    succeeds(build(), tmp_path)
    hub.trouble["resolve"] = {"silent": Trouble(seconds=40), "error": Trouble(500)}.get(way, Trouble())
    answers = {"HF_HUB_OFFLINE": {"HF_HUB_OFFLINE": "1"}, "gone": {"HF_ENDPOINT": NOBODY}}
    answers["silent"] = {"HF_HUB_ETAG_TIMEOUT": "1"}
    succeeds(build(**answers.get(way, {})), tmp_path)
    assert hub.fetched() == []


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "the Hub cannot be reached: HF_HUB_OFFLINE is set. Offline, `--model tiny`"),
        ({"HF_ENDPOINT": NOBODY}, "the Hub cannot be reached ("),
    ],
    ids=["HF_HUB_OFFLINE", "gone"],
)
def test_nothing_in_the_cache(build: Build, tmp_path: Path, way: dict[str, str], words: str) -> None:
    sentence = fails(build(**way), tmp_path)
    assert sentence.startswith(f"{NAME} is not in the cache and {words}")


@pytest.mark.quick(1)
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_is_out_of_order(hub: Hub, build: Build, tmp_path: Path, status: int) -> None:
    hub.trouble["config.json"] = Trouble(status)
    assert str(status) in fails(build(), tmp_path)
    assert len(hub.requests) == 1


def test_a_hub_that_says_nothing(hub: Hub, build: Build, tmp_path: Path) -> None:
    hub.trouble["config.json"] = Trouble(seconds=60)
    sentence = fails(build(HF_HUB_ETAG_TIMEOUT="1"), tmp_path)
    assert "is not in the cache and the Hub cannot be reached (timed out)" in sentence
    assert len(hub.requests) == 1


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["vocab.json", "model.safetensors"])
def test_a_file_cut_short_is_asked_for_again(hub: Hub, build: Build, tmp_path: Path, name: str) -> None:
    hub.trouble[f"lfs/{NAME}/-/{name}" if name.endswith("safetensors") else name] = Trouble(keep=0.5, times=3)
    done = build()
    if done.returncode:  # clients before 1.0 give up, and the next build goes on
        assert fails(done, tmp_path).startswith(f"{NAME} could not be downloaded: ")
        hub.trouble.clear()
        done = build()
    succeeds(done, tmp_path)


@pytest.mark.slow
def test_a_file_that_stays_cut_short(hub: Hub, build: Build, tmp_path: Path) -> None:
    """No workbook of half a file, nor half a file in the cache."""
    hub.trouble["lfs"] = Trouble(keep=0)
    assert fails(build(), tmp_path).startswith(f"{NAME} could not be downloaded: ")
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    hub.trouble.clear()
    succeeds(build(), tmp_path)


def test_there_is_no_such_model(build: Build, tmp_path: Path) -> None:
    sentence = fails(build("someone/nothing"), tmp_path)
    assert sentence.startswith("There is no model 'someone/nothing' on the Hub, and no folder of that name here; if it")


@pytest.mark.quick(1)
@pytest.mark.parametrize("file", ["config.json", "vocab.json", "merges.txt", "model.safetensors"])
def test_a_needed_file_is_not_there(hub: Hub, build: Build, tmp_path: Path, file: str) -> None:
    (hub.repositories[NAME] / file).unlink()
    assert f"holds no {file}" in fails(build(), tmp_path)
    assert not any(name.endswith(".bin") for name in hub.fetched())


def test_no_model_card(hub: Hub, build: Build, tmp_path: Path) -> None:
    (hub.repositories[NAME] / "README.md").unlink()
    assert succeeds(build(), tmp_path).model.licence == "not stated"


@pytest.mark.quick(1)
@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_a_gated_model(hub: Hub, build: Build, tmp_path: Path, token: str) -> None:
    hub.gated = frozenset({NAME})
    sentence = fails(build(HF_TOKEN=token), tmp_path)
    assert sentence == (
        f"{NAME} is gated: ask for access on its page on the Hub, then log in with `hf auth login` or set HF_TOKEN."
    )
    succeeds(build(HF_TOKEN=hub.token), tmp_path)


def test_shards(hub: Hub, build: Build, tmp_path: Path) -> None:
    folder = hub.repositories[NAME]
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in files if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    succeeds(build(), tmp_path)
    assert set(hub.fetched()) == {*NEEDED[:-1], "model.safetensors.index.json", *files.values()}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "pytorch_model.bin", 1])
def test_an_index_that_names_other_files(hub: Hub, build: Build, tmp_path: Path, name: object) -> None:
    folder = hub.repositories[NAME]
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    assert f"names the file {name!r}" in fails(build(), tmp_path)
    assert "pytorch_model.bin" not in hub.fetched()


@pytest.mark.slow
def test_a_cache_that_lacks_a_file(hub: Hub, build: Build, tmp_path: Path) -> None:
    """As another program's that needed less."""
    succeeds(build(), tmp_path)
    (tmp_path / "desk" / "out.xlsx").unlink()
    for path in (tmp_path / "home").rglob("merges.txt"):
        path.unlink()
    assert "is not in the cache" in fails(build(HF_HUB_OFFLINE="1"), tmp_path)
    succeeds(build(), tmp_path)


def test_a_folder_of_the_cache_is_a_model(hub: Hub, build: Build, tmp_path: Path) -> None:
    """What was downloaded loads as any folder does."""
    succeeds(build(), tmp_path)
    (config,) = (tmp_path / "home").rglob("config.json")
    shutil.copytree(config.parent, tmp_path / "copy")
    assert load(str(tmp_path / "copy")).licence == "apache-2.0"
