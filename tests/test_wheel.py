"""The built wheel, installed into an empty environment and used from another folder."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds nothing but the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "-w", str(folder), str(ROOT))
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip(python, "install", str(next(folder.glob("xlgpt-*.whl"))))
    return python


def pip(python: Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "-q", *arguments], check=True, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "xlgpt"], ["script"]])
def test_builds_the_bundled_model_from_another_folder(environment: Path, tmp_path: Path, command: list[str]) -> None:
    start = [str(environment.parent / "xlgpt")] if command == ["script"] else [str(environment), *command]
    done = subprocess.run(
        [*start, "build", "tiny.xlsx", "--model", "tiny"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny.xlsx: ")
    assert (tmp_path / "tiny.xlsx").stat().st_size > 1_000_000
    assert done.stderr == ""


@pytest.mark.slow
def test_the_templates_and_the_model_are_inside(environment: Path) -> None:
    code = "import xlgpt.compiler.template as t, xlgpt.model.checkpoint as c\n"
    code += "import xlgpt.interp.sae as s, xlgpt.interp.steering as v\n"
    code += "tiny = c.load('tiny'); its = tiny.companions\n"
    code += "print(t.folder(), c.TINY, its.sae, its.steering.parent, sep='\\n')\n"
    code += "s.read_autoencoder(its.sae, tiny); v.read_vectors(its.steering, tiny.config)"
    done = subprocess.run([environment, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    for line in done.stdout.splitlines():
        assert Path(line).is_dir()
        assert str(environment.parents[1]) in line


@pytest.mark.slow
def test_the_page_is_inside(environment: Path) -> None:
    code = "from xlgpt.view.site import PAGE\nprint(PAGE)\n"
    code += "for file in PAGE.iterdir(): print(file.name, file.stat().st_size)"
    done = subprocess.run([environment, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    folder, *files = done.stdout.splitlines()
    assert str(environment.parents[1]) in folder
    shipped = (ROOT / "xlgpt" / "view" / "page").iterdir()
    assert sorted(files) == sorted(f"{file.name} {file.stat().st_size}" for file in shipped)
    assert any(file.startswith("ironcalc.wasm ") for file in files)
