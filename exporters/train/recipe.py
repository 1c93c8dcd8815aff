"""How the embedded default is trained: sizes, steps, rates and seeds, all in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field

EXPERTS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-style decoder."""

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    intermediate: int = 192


@dataclass(frozen=True, slots=True)
class Course:
    """One training run: the rate rises over `warmup` steps, then falls in a line to `floor` of its peak."""

    steps: int
    rate: float
    warmup: int = 10
    floor: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"course: steps must be at least 1, got {self.steps}")

    def rate_at(self, step: int) -> float:
        rising = min(1.0, (step + 1) / self.warmup)
        return self.rate * rising * (self.floor + (1 - self.floor) * (1 - step / self.steps))

    def times(self, count: int) -> Course:
        return Course(self.steps * count, self.rate, self.warmup, self.floor)


@dataclass(frozen=True, slots=True)
class ValueCourse:
    """The value model's training: `layers` on top of the soup's trunk, and candidates sampled from every expert."""

    course: Course = Course(700, 3e-3, warmup=20)
    layers: int = 2
    problems: int = 3000  # per expert
    calibration_problems: int = 500

    def __post_init__(self) -> None:
        if self.problems < 1 or self.calibration_problems < 1:
            raise ValueError("value course: problems and calibration_problems must be at least 1")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights; the number of worker processes does not."""

    seed: int = 1
    digits: int = 8
    shape: Shape = Shape()
    batch: int = 128
    base: Course = Course(140, 4e-3, warmup=30, floor=0.3)
    expert: Course = Course(150, 2.8e-3)
    speciality: float = 0.6  # share of an expert's problems that are its own puzzle; the rest is all eight alike
    value: ValueCourse = field(default_factory=ValueCourse)
    samples: int = 2  # per expert and problem
    temperature: float = 1.0
    validation: int = 500
    heldout: int = 1000

    def __post_init__(self) -> None:
        if self.digits < 2 or self.digits % 2:
            raise ValueError(f"recipe: digits must be even and at least 2, got {self.digits}")
        if not 0 <= self.speciality <= 1:
            raise ValueError(f"recipe: speciality must be in [0, 1], got {self.speciality}")

    @property
    def new_tokens(self) -> int:
        """The digits and the end."""
        return self.digits + 1


DEFAULT = Recipe()
TINY = Recipe(
    digits=4,
    shape=Shape(hidden=32, layers=1, heads=2, kv_heads=1, head_size=16, intermediate=64),
    batch=16,
    base=Course(4, 4e-3),
    expert=Course(2, 2e-3),
    value=ValueCourse(Course(3, 2e-3), layers=1, problems=20, calibration_problems=10),
    validation=20,
    heldout=20,
)
