"""Whatever a user gets wrong: one sentence on standard error, an exit code, and the folder as it was before."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import CONFIG, Edit, Tensors, run_xlgpt

from xlgpt import build, cli
from xlgpt.errors import OutputError, XlgptError
from xlgpt.model.checkpoint import load
from xlgpt.workbook.options import Options
from xlgpt.workbook.plan import make_plan

Make = Callable[..., Path]
Run = Callable[..., str]
OLD = b"a workbook that somebody still needs"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The folder to write to, with a file that stands in the way."""
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "out.xlsx").write_bytes(OLD)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def fails(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `xlgpt build`, sees it fail as it should, and returns the sentence."""

    def run(*arguments: str | Path, code: int = 1, out: Path = desk / "out.xlsx") -> str:
        before = contents(desk)
        monkeypatch.setattr(sys, "argv", ["xlgpt", "build", str(out), *map(str, arguments)])
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capfd.readouterr()
        assert stopped.value.code == code
        assert shown.out == ""
        assert contents(desk) == before
        return one_sentence(shown.err)

    return run


def one_sentence(stderr: str) -> str:
    assert stderr.startswith("xlgpt: ")
    assert stderr.endswith(".\n")
    assert stderr.count("\n") == 1
    return stderr.removeprefix("xlgpt: ").strip()


# --- the model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("./nowhere", "no folder './nowhere'"),
        ("", "no folder ''"),
        ("m" * 300, "mmm"),
        ("a--b..c", "could not be downloaded: Cannot have -- or .. in repo_id: 'a--b..c'. Offline, `--model tiny`"),
        (
            "nobody/nothing",
            "not in the cache and the Hub cannot be reached: HF_HUB_OFFLINE is set. Offline, `--model tiny`",
        ),
        (".", "holds no config.json"),
    ],
)
def test_a_model_that_is_not_there(fails: Run, model: str, words: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in fails("--model", model)


def test_offline_with_an_empty_cache(tmp_path: Path) -> None:
    """The real huggingface_hub, in a process of its own."""
    done = run_xlgpt("build", tmp_path / "out.xlsx", env={"HF_HOME": str(tmp_path / "hub")})
    assert (done.returncode, done.stdout) == (1, "")
    assert "openai-community/gpt2 is not in the cache" in one_sentence(done.stderr)
    assert not list(tmp_path.glob("*.xlsx"))


def lacks(tensors: Tensors) -> None:
    del tensors["h.1.mlp.c_fc.bias"]


def too_many(tensors: Tensors) -> None:
    tensors["h.2.ln_1.weight"] = np.ones(CONFIG["n_embd"], dtype=np.float32)


def transposed(tensors: Tensors) -> None:
    tensors["h.0.mlp.c_fc.weight"] = np.ascontiguousarray(tensors["h.0.mlp.c_fc.weight"].T)


def twice(tensors: Tensors) -> None:
    tensors["transformer.wpe.weight"] = tensors["wpe.weight"] + 1


def whole_numbers(tensors: Tensors) -> None:
    tensors["wpe.weight"] = tensors["wpe.weight"].astype(np.int8)


def not_finite(value: float) -> Edit:
    def edit(tensors: Tensors) -> None:
        tensors["h.1.attn.c_proj.weight"][2, 3] = value

    return edit


def other_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors["wte.weight"] + 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lacks, "lacks the tensor h.1.mlp.c_fc.bias of shape [32]"),
        (too_many, "holds the tensor h.2.ln_1.weight"),
        (transposed, "h.0.mlp.c_fc.weight has shape [32, 8]; config.json asks for [8, 32]"),
        (twice, "wpe.weight stands in the checkpoint twice"),
        (whole_numbers, "wpe.weight is stored as I8"),
        (not_finite(np.nan), "h.1.attn.c_proj.weight holds nan at [2, 3]"),
        (not_finite(np.inf), "h.1.attn.c_proj.weight holds inf at [2, 3]"),
        (not_finite(-np.inf), "h.1.attn.c_proj.weight holds -inf at [2, 3]"),
        (other_head, "lm_head.weight differs from wte.weight"),
    ],
)
@pytest.mark.parametrize("prompt", ["hello", ""])
def test_tensors_that_make_no_model(fails: Run, make_checkpoint: Make, edit: Edit, words: str, prompt: str) -> None:
    assert words in fails("--model", make_checkpoint(edit), "--prompt", prompt)


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"PK\x03\x04 no tensors"], ids=["empty", "zeros", "other"])
def test_a_file_that_holds_no_tensors(fails: Run, make_checkpoint: Make, damage: bytes) -> None:
    folder = make_checkpoint()
    (folder / "model.safetensors").write_bytes(damage)
    assert "model.safetensors is damaged" in fails("--model", folder)


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_truncated_file(fails: Run, make_checkpoint: Make, keep: float) -> None:
    folder = make_checkpoint()
    os.truncate(folder / "model.safetensors", int(keep * (folder / "model.safetensors").stat().st_size))
    assert "download it again" in fails("--model", folder)


def test_a_file_that_shrinks_while_it_is_read(make_checkpoint: Make, desk: Path) -> None:
    folder = make_checkpoint()

    def shrink(phase: str, done: int, total: int) -> None:
        if phase == "Calculating the prompt":
            (folder / "model.safetensors").write_bytes(b"")

    with pytest.raises(XlgptError, match=r"model\.safetensors cannot be read"):
        build(desk / "out.xlsx", str(folder), "hello", progress=shrink)
    assert contents(desk) == {"out.xlsx": OLD}


@pytest.mark.parametrize("config", ["", "{", "[]", '{"model_type": "gpt2"}', '{"n_layer": "two"}'])
def test_a_damaged_config(fails: Run, make_checkpoint: Make, config: str) -> None:
    folder = make_checkpoint()
    (folder / "config.json").write_text(config)
    assert "config.json" in fails("--model", folder)


def test_a_vocabulary_that_does_not_fit(fails: Run, make_checkpoint: Make) -> None:
    sentence = fails("--model", make_checkpoint(vocab_size=270))
    assert "vocab.json gives '<|endoftext|>' the id 280" in sentence
    assert "270 rows" in sentence


def test_no_vocabulary(fails: Run, make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    (folder / "merges.txt").unlink()
    assert "merges.txt cannot be read" in fails("--model", folder)


# --- the arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--prompt", "hello the world", "--context", "2"],
            "3 tokens and the workbook rows for 2; shorten it, or give --context 3",
        ),
        (["--prompt", "\n" * 33], "33 tokens and the workbook rows for 32"),
        (["--context", "33"], "The model knows 32 positions; a context of 33"),
        (["--context", "0"], "A context of 0 holds no token"),
        (["--context", "-1"], "A context of -1 holds no token"),
        (["--prompt", "a" * 32_768], "32,768 characters; a cell holds 32,767"),
        (["--prompt", "\U0001f600" * 16_384], "32,768 characters; a cell holds 32,767"),
        (["--prompt", "\uffff"], "U+FFFF"),
        (["--prompt", "half a pair: \ud83d"], "U+D83D"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_arguments_that_no_model_satisfies(fails: Run, make_checkpoint: Make, arguments: list[str], words: str) -> None:
    assert words in fails("--model", make_checkpoint(), *arguments, code=2)


@pytest.mark.parametrize("arguments", [["--context", "many"], ["--bogus"], ["more", "arguments"]])
def test_arguments_that_click_refuses(desk: Path, arguments: list[str], capfd: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["xlgpt", "build", str(desk / "out.xlsx"), *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "--help" in capfd.readouterr().err
    assert contents(desk) == {"out.xlsx": OLD}


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ("n_layer=1,n_inner=16382", "blocks.0.mlp.pre would end at row"),  # three columns of labels stand before it
        ("n_layer=1,n_embd=5462,n_inner=1", "h.0.attn.c_attn.weight would end at row"),
        ("n_layer=1,n_positions=1048576", "a sheet has 1,048,576 rows and 16,384 columns"),
    ],
)
def test_more_than_a_sheet_holds(fails: Run, dimensions: str, words: str) -> None:
    assert words in fails("--model", f"random:{dimensions}", "--context", "2")


def test_the_widest_that_a_sheet_holds(make_checkpoint: Make) -> None:
    widest = make_plan(
        load(str(make_checkpoint(n_inner=16_381))), Options(prompt="hello", context=1, max_bytes=16, sheets="none")
    )
    assert widest.layout.names["blocks.0.mlp.pre"].absolute.partition(":")[2].startswith("$XFD$")


# --- the place to write to


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere/out.xlsx", "There is no folder"),
        ("out.xlsx/out.xlsx", "There is no folder"),
        (".", "is a folder"),
        ("out.xls", "neither .xlsx nor .xlsb"),
        (f"{'n' * 251}.xlsx", "File name too long"),
        (f"{'n' * 245}.xlsx", "File name too long"),
    ],
    ids=lambda value: value[:20],
)
def test_a_place_that_cannot_be_written(fails: Run, desk: Path, make_checkpoint: Make, place: str, words: str) -> None:
    assert words in fails("--model", make_checkpoint(), out=desk / place)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a small file system; only root can."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a file system")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_is_read_only(mounted: Callable[[str], Path], fails: Run, make_checkpoint: Make) -> None:
    folder = mounted("ro,size=64k")
    assert "you have no right to write there" in fails("--model", make_checkpoint(), out=folder / "out.xlsx")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(fails: Run, desk: Path, make_checkpoint: Make) -> None:
    desk.chmod(0o500)
    try:
        assert "you have no right to write there" in fails("--model", make_checkpoint())
    finally:
        desk.chmod(0o700)


@pytest.mark.quick(1)
@pytest.mark.parametrize("model", ["small", "random:n_layer=2,n_embd=512"], ids=["here", "workers"])
def test_a_disk_that_fills_up(mounted: Callable[[str], Path], fails: Run, make_checkpoint: Make, model: str) -> None:
    folder = mounted("size=32k")
    (folder / "out.xlsx").write_bytes(OLD)
    name = make_checkpoint() if model == "small" else model
    assert fails("--model", name, out=folder / "out.xlsx") == f"The disk of {folder} is full; out.xlsx was not written."
    assert contents(folder) == {"out.xlsx": OLD}


@pytest.mark.quick(1)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_move_that_fails(monkeypatch: pytest.MonkeyPatch, fails: Run, make_checkpoint: Make, code: int) -> None:
    def replace(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(os, "replace", replace)
    assert "out.xlsx" in fails("--model", make_checkpoint())


# --- a build that is stopped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "send"),  # a terminal sends it to the whole group
    [
        pytest.param("n_layer=4,n_embd=256", "kill", id="one process"),
        pytest.param("n_layer=2,n_embd=768", "kill", id="workers"),
        pytest.param("n_layer=2,n_embd=768", "killpg", id="workers, from a terminal"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C only to a whole console, and so to the tests too")
def test_control_c_in_the_middle(desk: Path, size: str, send: str) -> None:
    command = [sys.executable, "-m", "xlgpt", "build", str(desk / "out.xlsx"), "--model", f"random:{size}"]
    command += ["--context", "8"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as building:
        until(lambda: largest(desk) > 20_000, building)
        getattr(os, send)(building.pid, signal.SIGINT)
        _, stderr = building.communicate(timeout=30)
    assert building.returncode == 130
    assert one_sentence(stderr.lstrip("\n")) == "stopped; nothing was written."
    assert contents(desk) == {"out.xlsx": OLD}
    assert not processes_about(desk)


@pytest.mark.slow
def test_a_worker_that_is_killed(desk: Path) -> None:
    """As the system does where memory runs out."""
    command = [sys.executable, "-m", "xlgpt", "build", str(desk / "out.xlsx"), "--model", "random:n_layer=2,n_embd=768"]
    with subprocess.Popen([*command, "--context", "8"], stderr=subprocess.PIPE, text=True) as building:
        until(lambda: largest(desk) > 20_000, building)
        started = psutil.Process(building.pid).children(recursive=True)
        next(process for process in started if "joblib.externals.loky.backend.popen" in str(process.cmdline())).kill()
        _, stderr = building.communicate(timeout=120)
    assert building.returncode == 1
    assert one_sentence(stderr) == "A process that packed weights was ended; give it more memory, or fewer --jobs."
    assert contents(desk) == {"out.xlsx": OLD}
    left = psutil.wait_procs(started, timeout=2)[1]
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_any_number_of_jobs_makes_the_same_file(tmp_path: Path) -> None:
    made = []
    for jobs in (1, 2, 3):
        build(
            tmp_path / "book.xlsx", "random:n_layer=2,n_embd=512,vocab_size=1280", context=4, sheets="none", jobs=jobs
        )
        with zipfile.ZipFile(tmp_path / "book.xlsx") as book:
            parts = [entry for entry in book.infolist() if entry.filename != "docProps/core.xml"]  # when it was made
            made.append([(entry.filename, entry.CRC, entry.compress_size) for entry in parts])
    assert made[0] == made[1] == made[2]


def test_no_jobs(fails: Run) -> None:
    assert fails("--model", "tiny", "--jobs", "0", code=2).startswith("--jobs 0: give 1 or more processes")


def processes_about(folder: Path) -> list[str]:
    """The command lines that name a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            found.append(" ".join(process.cmdline()))
    return [command for command in found if str(folder) in command]


def largest(folder: Path) -> int:
    """The size of the largest unfinished file below a folder."""
    sizes = [0]
    for path in folder.rglob("*"):
        if path.name != "out.xlsx":
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
    return max(sizes)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait, not longer than half a minute, and only while the process runs."""
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, "the build ended before it could be stopped"
        assert time.monotonic() < end
        time.sleep(0.002)


def test_an_error_in_the_middle(desk: Path, make_checkpoint: Make) -> None:
    """Any failure, foreseen or not, leaves the folder as it was."""

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "Writing weights":
            assert len(contents(desk)) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build(desk / "out.xlsx", str(make_checkpoint()), "hello", progress=stop)
    assert contents(desk) == {"out.xlsx": OLD}


def test_a_success_replaces_the_file(desk: Path, make_checkpoint: Make) -> None:
    build(desk / "out.xlsx", str(make_checkpoint()), "hello")
    assert [path.name for path in desk.iterdir()] == ["out.xlsx"]
    assert (desk / "out.xlsx").read_bytes().startswith(b"PK")


def test_the_api_raises_what_the_command_prints(desk: Path, make_checkpoint: Make) -> None:
    with pytest.raises(OutputError, match="There is no folder"):
        build(desk / "nowhere" / "out.xlsx", str(make_checkpoint()))
