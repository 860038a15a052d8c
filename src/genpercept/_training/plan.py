"""What `--dry-run` says a recipe would do; nothing is rendered, trained or written."""

from __future__ import annotations

from genpercept.recipe import Recipe


def plan(recipe: Recipe) -> str:
    """Steps, images and data in a few lines."""
    images = recipe.steps * recipe.loader.batch_size * recipe.optim.accumulation
    sets = ", ".join(f"{d.name}/{d.domain} {d.count or 'all'} x {d.weight:g}" for d in recipe.data)
    lines = [
        f"stage {recipe.stage}: {recipe.steps} steps of {recipe.loader.batch_size} x {recipe.optim.accumulation}, {images:,} images",
        f"data: {sets}; sizes {', '.join(f'{h}x{w}' for h, w in recipe.sizes())}",
    ]
    if recipe.max_minutes:
        lines.append(f"stops after {recipe.max_minutes:g} min if that is sooner")
    return "\n".join(lines)
