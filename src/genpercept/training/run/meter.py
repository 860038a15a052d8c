"""What a run tells of itself between steps: smoothed figures, throughput, time left."""

from __future__ import annotations

from genpercept.training.recipe import Recipe


class Meter:
    """Smoothed figures of the last steps, throughput and time left."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._images = recipe.loader.batch_size
        self._figures: dict[str, float] = {}
        self._seconds = self._waited = self._count = 0.0
        self._waited_before = 0.0

    def add(self, figures: dict[str, float], seconds: float, waited: float) -> None:
        memory = 0.95 if self._count else 0.0
        for name, value in figures.items():
            self._figures[name] = memory * self._figures.get(name, value) + (1 - memory) * value
        self._figures["lr"] = figures["lr"]
        self._seconds = memory * self._seconds + (1 - memory) * seconds
        self._waited = memory * self._waited + (1 - memory) * (waited - self._waited_before)
        self._waited_before, self._count = waited, self._count + 1

    def figures(self) -> dict[str, float]:
        rates = (
            {"images/s": self._images / self._seconds, "data_wait": self._waited / self._seconds}
            if self._seconds
            else {}
        )
        return {**self._figures, **rates}

    def left(self, step: int, spent: float) -> float:
        """Seconds until the steps or the minutes run out."""
        left = (self._recipe.steps - step) * self._seconds
        return min(left, 60 * self._recipe.max_minutes - spent) if self._recipe.max_minutes else left
