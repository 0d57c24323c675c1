"""A flaky network on purpose: answers that are dropped, cut in the middle or late."""

import random
import threading
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Shares of answers that go wrong. The same seed and the same order of requests give the same faults.

    Args:
        drop (`float`, *optional*, defaults to `0.0`): Share of requests that get no answer: the connection closes,
            for half of them before the request took effect and for half of them after.
        cut (`float`, *optional*, defaults to `0.0`): Share of answers that break off in the middle of their body.
            An answer without a body goes through.
        delay (`float`, *optional*, defaults to `0.0`): Share of answers that come late.
        delay_seconds (`float`, *optional*, defaults to `0.05`): How late.
        seed (`int`, *optional*, defaults to `0`): Seed of the choice.
    """

    drop: float = 0.0
    cut: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 0.05
    seed: int = 0
    _random: random.Random = field(init=False, repr=False, compare=False)
    _lock: threading.Lock = field(init=False, repr=False, compare=False, default_factory=threading.Lock)

    def __post_init__(self):
        for name in ("drop", "cut", "delay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share between 0 and 1")
        if self.drop + self.cut + self.delay > 1:
            raise ValueError(
                f"drop, cut and delay are {self.drop}, {self.cut} and {self.delay}; together they must not exceed 1"
            )
        if self.delay_seconds < 0:
            raise ValueError(f"delay_seconds is {self.delay_seconds}; give a time of 0 or more")
        self._random = random.Random(self.seed)

    def draw(self) -> str | None:
        """What happens to the next request: "drop_before", "drop_after", "cut", "delay" or `None`."""
        with self._lock:
            share, before = self._random.random(), self._random.random() < 0.5
        if share < self.drop:
            return "drop_before" if before else "drop_after"
        if share < self.drop + self.cut:
            return "cut"
        return "delay" if share < self.drop + self.cut + self.delay else None
