"""What long work tells of itself while it goes on."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # the phase, how much is done, of how much


def silent(phase: str, done: int, total: int) -> None:
    """Show no progress."""
