"""What a workbook is to be: all that a build can be told, with its defaults and its checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xlgpt.compiler.matmul import CHOICES
from xlgpt.compiler.template import optional_sheets
from xlgpt.errors import UsageError
from xlgpt.interp.vectors_and_features import Asked, features_of
from xlgpt.parallel import check_jobs


def paths(given: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """One path, or several."""
    return (Path(given),) if isinstance(given, str | Path) else tuple(map(Path, given))


@dataclass(frozen=True)
class Options:
    """What a build is asked for.

    model: gpt2, tiny, random:gpt2, random:n_layer=2,…, a folder in the Hub's layout, or an id on the Hub.
    prompt: what the model is to go on from. context: how many tokens there are rows for. max_bytes: how long a
    prompt the workbook can cut into tokens, 256 unless told (128 for a small model). generate: how many tokens it can
    write behind the prompt, 8 unless told (32 for a small model). matmul: how a matrix product becomes cells: mmult,
    sumproduct (faster in LibreOffice, more cells) or auto. precision: to how many significant digits weights are
    rounded, in an .xlsb to bits that are finer; None writes each so that it reads back bit for bit. seed: of a random
    model.
    sheets: those that look inside the model, all, none, or some of their names with commas between.
    steering: a file of vectors (.npy, .npz or .safetensors) for the sheet Steering. sae: the folder of a sparse
    autoencoder (SAELens) for the sheet Features. features: their numbers, with commas between; by default those that
    are most active in the prompt. adapter: the folder of a LoRA adapter (PEFT) for the sheet Adapters, or several.
    subject: what the prompt is about, for the sheet Tracing, where that does not come with the model.
    jobs: how many processes pack the weights of a large model, one on each core unless told; the file is the same.
    cluster: the address of a Dask scheduler, tcp://…, whose workers pack them instead.
    Raises UsageError where they do not go together.
    """

    model: str = "gpt2"
    prompt: str | None = None
    context: int | None = None
    max_bytes: int | None = None
    generate: int | None = None
    matmul: str = "auto"
    precision: int | None = None
    seed: int = 0
    sheets: str = "all"
    steering: str | Path | None = None
    sae: str | Path | None = None
    features: str | None = None
    adapter: str | Path | Sequence[str | Path] = ()
    subject: str | None = None
    jobs: int | None = None
    cluster: str = ""

    def __post_init__(self) -> None:
        if self.matmul not in CHOICES:
            raise UsageError(f"--matmul {self.matmul}: write {', '.join(CHOICES[:-1])} or {CHOICES[-1]}.")
        asked = self.asked
        given: dict[str, tuple[object, str]] = {
            "--steering": (asked.steering, "steering"),
            "--sae": (asked.sae, "features"),
            "--features": (asked.features, "features"),
            "--adapter": (self.adapters, "adapters"),
            "--subject": (self.subject, "tracing"),
        }
        for option, (value, sheet) in given.items():
            if value and sheet not in self.views:
                raise UsageError(f"{option} needs the sheet {sheet!r}, which --sheets leaves out; name it there too.")
        check_jobs(self.jobs, self.cluster)

    @cached_property
    def asked(self) -> Asked:
        """The vectors and features that it is to bring along."""
        vectors, autoencoder = (Path(path) if path else None for path in (self.steering, self.sae))
        return Asked(vectors, autoencoder, features_of(self.features))

    @cached_property
    def adapters(self) -> tuple[Path, ...]:
        """The folders of the adapters that it is to bring along."""
        return paths(self.adapter)

    @cached_property
    def views(self) -> tuple[str, ...]:
        """The optional sheets that are wanted, in their order."""
        known = optional_sheets()
        if self.sheets in ("all", "none"):
            return tuple(known) if self.sheets == "all" else ()
        asked = {name.strip() for name in self.sheets.split(",")}
        unknown = sorted(asked - known.keys())
        if unknown:
            raise UsageError(
                f"There is no sheet {unknown[0]!r} to choose; --sheets takes all, none, or {', '.join(known)}."
            )
        return tuple(name for name in known if name in asked)
