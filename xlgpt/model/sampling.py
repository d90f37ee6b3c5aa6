"""How the next token is chosen: the most likely one, or a random one, as a seed decides."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BEST = 50  # of a slice are kept, so that top_k can be as large
PRIME = 67_108_859  # the largest below 2^26, so that a square stays exact in a cell
MODULI, FACTORS = (2_147_483_563, 2_147_483_399), (40_014, 40_692)  # L'Ecuyer 1988, Communications of the ACM 31


@dataclass(frozen=True)
class Sampling:
    """temperature 0: the most likely. top_k 0 and top_p 1: no limit. seed: a whole number below 2^31."""

    temperature: float = 0
    top_k: int = 0
    top_p: float = 1
    seed: int = 1

    @property
    def divisor(self) -> float:
        """What logits are divided by."""
        return self.temperature or 1

    @property
    def sorts(self) -> bool:
        """Whether only some of the most likely tokens may be drawn."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1)


@dataclass(frozen=True)
class Draw:
    """The states of two random generators, and the number in (0, 1) that they make."""

    first: int
    second: int

    @property
    def number(self) -> float:
        """Uniform in (0, 1)."""
        return ((self.first - self.second) % (MODULI[0] - 1) + 0.5) / (MODULI[0] - 1)


def mixed(seed: int, constant: int) -> int:
    """A seed, squared three times modulo a prime, so that neighbours have nothing in common."""
    x = seed % PRIME
    for _ in range(3):
        x = (x * x + constant) % PRIME
    return x


def mixed_pair(seed: int) -> tuple[int, int]:
    """What the two generators start from."""
    return mixed(seed, 12_345), mixed(seed + 1, 67_890)


def random_numbers(seed: int) -> Iterator[Draw]:
    """One for each token to write: two multiplicative generators, combined (L'Ecuyer 1988)."""
    first, second = (start + 1 for start in mixed_pair(seed))
    while True:
        first, second = first * FACTORS[0] % MODULI[0], second * FACTORS[1] % MODULI[1]
        yield Draw(first, second)


def shares(logits: Array, sampling: Sampling) -> Array:
    """exp((logit - best) / temperature) of every token [V]: the softmax, but for its divisor."""
    exponentials: Array = np.exp((logits - logits.max()) / sampling.divisor)
    return exponentials


def candidates(logits: Array) -> NDArray[np.intp]:
    """The ids of the most likely tokens, the best first; of equals the first."""
    return np.argsort(-logits, kind="stable")[:BEST]


def kept(logits: Array, sampling: Sampling) -> int:
    """How many candidates top_k and top_p leave (Holtzman et al. 2020); -1 where it is more than there are.

    The last one kept is that with which the share top_p is reached.
    """
    share = shares(logits, sampling)
    running = np.cumsum(share[candidates(logits)])
    if sampling.top_k:
        wanted = sampling.top_p * running[sampling.top_k - 1]
        return min(sampling.top_k, 1 + int((running < wanted).sum()))
    wanted = sampling.top_p * share.sum()
    return -1 if running[-1] < wanted else 1 + int((running < wanted).sum())


def choose(logits: Array, draw: float, sampling: Sampling) -> int:
    """The id that a draw in (0, 1) falls on, for the logits [V]; -1 where top_p asks for too many candidates."""
    if not sampling.temperature:
        return int(logits.argmax())
    share = shares(logits, sampling)
    if not sampling.sorts:
        return int((np.cumsum(share) <= draw * share.sum()).sum())
    count = kept(logits, sampling)
    if count < 0:
        return -1
    best = candidates(logits)[:count]
    running = np.cumsum(share[best])
    chosen = best[(running <= draw * running[-1]).sum()]
    return int((logits == logits[chosen]).argmax())


def write(ids: list[int], n: int, logits: Callable[[list[int]], Array], sampling: Sampling, stop: int) -> list[int]:
    """Go on from some ids by at most n tokens, until `stop` is chosen. logits: those [V] of what comes after ids."""
    written: list[int] = []
    for _, drawn in zip(range(n), random_numbers(sampling.seed), strict=False):
        chosen = choose(logits([*ids, *written]), drawn.number, sampling)
        if chosen in (-1, stop):
            break
        written.append(chosen)
    return written
