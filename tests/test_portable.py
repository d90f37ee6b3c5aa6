"""As on Windows: without the modules, functions and signals that only POSIX has, and with its rules for file names.

They are taken from xlgpt's view alone, since the libraries below it choose theirs by the system they run on. A
`sitecustomize` does it, so that the processes that pack weights lack them too; LibreOffice's own Python does not.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import run_xlgpt

TAKEN_AWAY = '''
import builtins, os, signal, sys, types, warnings

MODULES = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "posix", "readline", "syslog"}
NAMES = {
    "os": """nice killpg getpgrp getpgid setpgid setsid getsid fork forkpty getuid geteuid getgid getegid setuid chown
        fchmod fchown uname sysconf wait3 wait4 WNOHANG mkfifo getloadavg sched_getaffinity register_at_fork statvfs
        sync pread pwrite sendfile posix_spawn""".split(),
    "signal": """SIGKILL SIGHUP SIGALRM SIGCHLD SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 SIGTSTP SIGSTOP SIGCONT alarm pause
        setitimer pthread_sigmask pthread_kill sigwait siginterrupt""".split(),
}


def without(module, names):
    copy = types.ModuleType(module.__name__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in names})
    return copy


LACKING = {"os": without(os, NAMES["os"]), "signal": without(signal, NAMES["signal"])}
import_ = builtins.__import__


def as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    if globals and str(globals.get("__name__")).partition(".")[0] == "xlgpt":
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}")
        if name in LACKING:
            return LACKING[name]
    return import_(name, globals, locals, fromlist, level)


def refuse_names(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & os.O_CREAT:
        if set(os.path.basename(arguments[0])) & set('<>:"|?*'):
            raise OSError(22, "Invalid argument", arguments[0])


builtins.__import__ = as_on_windows
sys.addaudithook(refuse_names)
warnings.filterwarnings("ignore", category=EncodingWarning)
warnings.filterwarnings("error", category=EncodingWarning, module="xlgpt")
'''

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def on_windows(tmp_path: Path) -> Command:
    """A function that runs the command line as on Windows."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(TAKEN_AWAY, encoding="utf-8")
    folders = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "PYTHONWARNDEFAULTENCODING": "1"}
    environment |= {"PYTHONUTF8": "0"}

    def run(*arguments: str | Path, code: str | None = None) -> CompletedProcess[str]:
        done = run_xlgpt(*arguments, code=code, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done

    return run


def test_it_is_taken_away(on_windows: Command) -> None:
    code = "space = {'__name__': 'xlgpt.some'}\n"
    for line in ("import resource", "import os; os.nice", "from os import killpg", "import signal; signal.SIGKILL"):
        code += f"try: exec({line!r}, space)\nexcept (ImportError, AttributeError): print('gone')\n"
    code += "try: open('a:b', 'w', encoding='utf-8')\nexcept OSError: print('gone')\n"
    code += "exec(compile('import os; os.getpid(); os.path.join', 'x', 'exec'), space)\n"
    assert on_windows(code=code).stdout.split() == ["gone"] * 5


@pytest.mark.slow
def test_builds_reads_checks_and_runs_the_bundled_model(on_windows: Command, tmp_path: Path) -> None:
    book = tmp_path / "tiny.xlsx"
    on_windows("build", book, "--model", "tiny", "--context", "8", "--sheets", "lens")
    assert "Passed: " in on_windows("check", book, "--prompt", "Mike pulls out his").stdout
    run = on_windows("run", book, "--engine", "formulas", "--prompt", "If today is Tuesday, tomorrow is")
    assert run.stdout.startswith("If today is Tuesday, tomorrow is Wednesday")
    read = on_windows(code=f"import xlgpt; print(xlgpt.read({str(book)!r}, 'next_token', engine='formulas'))")
    assert "next_token" in read.stdout


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_packs_weights_in_other_processes(on_windows: Command, tmp_path: Path, jobs: str) -> None:
    size = [
        "--model",
        "random:n_layer=2,n_embd=512,vocab_size=1280",
        "--context",
        "4",
        "--sheets",
        "none",
        "--jobs",
        jobs,
    ]
    on_windows("build", tmp_path / "book.xlsx", *size)
    assert [path.name for path in tmp_path.iterdir() if path.name != "site"] == ["book.xlsx"]


@pytest.mark.slow
@pytest.mark.libreoffice
def test_runs_the_bundled_model_in_libreoffice(on_windows: Command, tiny_book: Path) -> None:
    run = on_windows("run", tiny_book, "--prompt", "If today is Tuesday, tomorrow is")
    assert run.stdout.startswith("If today is Tuesday, tomorrow is Wednesday")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_without_all_letters(tiny_book: Path, encoding: str) -> None:
    """Windows writes to a pipe in a code page that lacks ␣; JSON stays whole."""
    console = {"PYTHONIOENCODING": encoding}
    shown = run_xlgpt("tokenize", "a é 😀", "--model", "tiny", env=console, encoding=encoding)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "U+1F600" in shown.stdout
    arguments = ["run", str(tiny_book), "--engine", "formulas", "--prompt", "a é 😀", "--json"]
    answer = run_xlgpt(*arguments, env=console, encoding=encoding)
    assert json.loads(answer.stdout)["prompt"] == "a é 😀"
