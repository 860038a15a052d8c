"""Class names and the closed vocabulary of captions."""

from __future__ import annotations

import random

CLASSES: tuple[str, ...] = (
    "sky",
    "ground",
    "floor",
    "wall",
    "ceiling",
    "building",
    "road",
    "plant",
    "person",
    "animal",
    "furniture",
    "vehicle",
    "container",
    "lamp",
    "picture",
    "window",
    "door",
    "pole",
    "book",
    "machine",
    "textile",
    "object",
)

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_PLURALS = {
    "shelf": "shelves",
    "arch": "arches",
    "cactus": "cacti",
    "fish": "fish",
    "stairs": "stairs",
    "person": "people",
    "bench": "benches",
    "box": "boxes",
    "bush": "bushes",
    "dish": "dishes",
    "grass": "grass",
    "fruit": "fruit",
    "scissors": "scissors",
    "glass": "glasses",
    "branch": "branches",
    "knife": "knives",
}
_MANY = "several"

NOUNS: tuple[str, ...] = (
    "table",
    "chair",
    "sofa",
    "bed",
    "shelf",
    "desk",
    "cupboard",
    "lamp",
    "plant",
    "picture",
    "window",
    "door",
    "curtain",
    "rug",
    "book",
    "cup",
    "bottle",
    "bowl",
    "vase",
    "plate",
    "fruit",
    "ball",
    "box",
    "person",
    "dog",
    "horse",
    "bird",
    "fish",
    "tree",
    "bush",
    "grass",
    "flower",
    "rock",
    "house",
    "building",
    "car",
    "truck",
    "pole",
    "sign",
    "fence",
    "wall",
    "road",
    "hill",
    "bench",
    "engine",
    "wheel",
    "pipe",
    "face",
    "cushion",
    "stool",
    "counter",
    "radiator",
    "screen",
    "clock",
    "bin",
    "basket",
    "toy",
    "pot",
    "bicycle",
    "column",
    "stairs",
    "arch",
    "cloth",
    "stone",
    "cactus",
    "mushroom",
)

PLACES: tuple[str, ...] = (
    "a room",
    "a living room",
    "a bedroom",
    "a kitchen",
    "an office",
    "a corridor",
    "a street",
    "a field",
    "a garden",
    "a park",
    "a hillside",
    "a yard",
    "a facade",
    "a table top",
    "a close view",
    "a portrait",
    "a workshop",
    "a pile of things",
    "a road",
    "a village",
    "a forest",
    "a desert",
    "a corner",
)

LIGHTS: tuple[str, ...] = (
    "warm light",
    "cold light",
    "soft light",
    "dim light",
    "bright light",
    "sunny",
    "cloudy",
    "fog",
    "evening light",
    "at night",
)

_SMALL = ("a", "an", "with", "and", "in", "of", "two", "three", "four", "several")
WORDS: tuple[str, ...] = tuple(
    sorted(
        {w for phrase in (*PLACES, *LIGHTS, *_SMALL, *NOUNS) for w in phrase.split()}
        | {_PLURALS.get(n, n + "s") for n in NOUNS}
    )
)


def phrase(noun: str, count: int) -> str:
    if noun == "grass" or noun == "fruit":
        return noun
    if count == 1:
        return ("an " if noun[0] in "aeiou" else "a ") + noun
    return f"{_NUMBERS.get(count, _MANY)} {_PLURALS.get(noun, noun + 's')}"


def caption(r: random.Random, place: str, seen: list[tuple[str, int]], light: str) -> str:
    """One sentence of at most 24 words. seen: nouns with counts, largest first."""
    parts = [phrase(n, c) for n, c in seen[:4]]
    text = place
    if parts:
        text += " with " + (", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0])
    return text + (", " + light if light and r.random() < 0.8 else "")
