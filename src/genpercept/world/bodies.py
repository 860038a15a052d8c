"""People and animals: jointed bodies of ellipsoids and tapered limbs. Origin between the feet, facing +z, metres."""

from __future__ import annotations

import math
from typing import NamedTuple

from genpercept.world.builder import Vec, World, matmul, pitch, roll, yaw

JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)


def _step(p: Vec, length: float, forward: float, outward: float) -> Vec:
    """From p, `length` along a limb that hangs down, swung forward (about x) and outward (about z)."""
    c = math.cos(outward)
    return (
        p[0] + length * math.sin(outward),
        p[1] - length * math.cos(forward) * c,
        p[2] + length * math.sin(forward) * c,
    )


def _pose(w: World, seat: float) -> dict[str, tuple[float, float]]:
    """Angles (forward, outward) of the limbs, for a person standing, walking, reaching or sitting."""
    r = w.r
    kind = "sit" if seat > 0 else r.choice(("stand", "stand", "walk", "raise", "reach", "wild"))
    swing = r.uniform(0.2, 0.6) * r.choice((-1, 1)) if kind == "walk" else r.gauss(0, 0.08)
    out: dict[str, tuple[float, float]] = {}
    for side, s in (("left", 1), ("right", -1)):
        arm, leg = -s * swing, s * swing
        upper, fore = (arm + r.gauss(0, 0.15), r.uniform(0.05, 0.25)), (arm + r.uniform(0.1, 0.7), r.uniform(0.0, 0.2))
        thigh, shin = (leg, r.uniform(0, 0.12)), (leg - (abs(swing) if leg < 0 else 0.1) * 0.8, 0.03)
        if kind == "sit":
            thigh, shin = (1.45 + r.gauss(0, 0.1), r.uniform(0, 0.25)), (r.gauss(0, 0.2), 0.0)
            fore = (r.uniform(0.6, 1.5), r.uniform(-0.4, 0.2))
        if kind == "raise" or (kind == "wild" and r.random() < 0.5):
            upper, fore = (r.uniform(0.3, 2.9), r.uniform(0.2, 1.4)), (r.uniform(1.0, 3.1), r.uniform(-0.3, 0.8))
        if kind == "reach":
            upper, fore = (r.uniform(0.5, 1.5), r.uniform(-0.1, 0.5)), (r.uniform(0.9, 1.9), r.uniform(-0.5, 0.3))
        if kind == "wild":
            thigh, shin = (r.uniform(-0.5, 1.2), r.uniform(0, 0.6)), (r.uniform(-1.0, 0.2), r.uniform(0, 0.3))
        out[side + "_upper"], out[side + "_fore"], out[side + "_thigh"], out[side + "_shin"] = upper, fore, thigh, shin
    return out


def head(w: World, size: float, skin: int, hair: int) -> dict[str, Vec]:
    """A head of half height `size` about the frame's origin; gives the facial joints in that frame."""
    r, s = w.r, size
    sx, sz = s * r.uniform(0.68, 0.78), s * r.uniform(0.8, 0.9)
    w.ball(0, 0.12 * s, 0, sx, 0.88 * s, sz, skin)
    w.ball(0, -0.45 * s, 0.16 * s, sx * r.uniform(0.68, 0.85), 0.52 * s, sz * 0.72, skin)
    ex, ey = 0.31 * s, 0.08 * s
    ez = sz * math.sqrt(max(1 - (ex / sx) ** 2, 0.2)) * 0.95
    white, iris, dark = w.mat("ceramic", (0.75, 0.74, 0.72)), w.mat("ceramic", (0.06, 0.04, 0.03)), hair
    lips = w.mat("skin", (0.45, 0.12, 0.1))
    for x in (-ex, ex):
        w.ball(x, ey, ez - 0.04 * s, 0.13 * s, 0.075 * s, 0.09 * s, white)
        w.ball(x, ey, ez + 0.025 * s, 0.06 * s, 0.065 * s, 0.04 * s, iris)
        w.ball(x, ey + 0.17 * s, ez + 0.0 * s, 0.17 * s, 0.03 * s, 0.06 * s, dark, roll(0.15 if x < 0 else -0.15))
    nose = (0.0, -0.16 * s, sz * 0.93 + 0.13 * s)
    w.tube(0, -0.04 * s, sz * 0.93 + 0.02 * s, 0.15 * s, 0.2 * s, skin, 0.3, 0, pitch(-0.28))
    w.ball(*nose[:2], nose[2] - 0.05 * s, 0.12 * s, 0.09 * s, 0.1 * s, skin)
    w.ball(0, -0.5 * s, sz * 0.88, 0.23 * s, 0.045 * s, 0.08 * s, lips)
    w.ball(0, -0.56 * s, sz * 0.87, 0.2 * s, 0.04 * s, 0.08 * s, lips)
    for x in (-1, 1):
        w.ball(x * sx * 0.98, -0.02 * s, -0.05 * s, 0.06 * s, 0.2 * s, 0.12 * s, skin)
    style = r.randrange(5)
    if style < 4:
        w.ball(0, 0.3 * s, -0.16 * s, sx * 1.08, 0.8 * s, sz * 0.98, hair)
        w.ball(0, 0.72 * s, 0.2 * s, sx * 0.85, 0.32 * s, sz * 0.65, hair)
    if style == 1:
        w.ball(0, -0.3 * s, -0.4 * s, sx * 1.15, 1.1 * s, sz * 0.62, hair)
    elif style == 2:
        w.ball(0, 0.75 * s, -0.75 * s, 0.35 * s, 0.35 * s, 0.35 * s, hair)
    elif style == 3:
        hat = w.mat(r.choice(("fabric", "leather", "plastic")))
        w.ball(0, 0.45 * s, -0.03 * s, sx * 1.14, 0.66 * s, sz * 1.1, hat)
        w.tube(0, 0.55 * s, 0.25 * s, sx * 1.2, 0.03 * s, hat)
    if r.random() < 0.2:
        frame = w.mat("metal", (0.05, 0.05, 0.05))
        for x in (-ex, ex):
            w.ring(x, ey, ez + 0.1 * s, 0.2 * s, 0.025 * s, frame, pitch(math.pi / 2))
    return {
        "nose": nose,
        "left_eye": (ex, ey, ez + 0.06 * s),
        "right_eye": (-ex, ey, ez + 0.06 * s),
        "left_ear": (sx * 1.02, -0.02 * s, -0.05 * s),
        "right_ear": (-sx * 1.02, -0.02 * s, -0.05 * s),
    }


class _Body(NamedTuple):
    """What a person's parts share: height and girth, angles of the limbs, materials, what is bare."""

    tall: float
    build: float
    angles: dict[str, tuple[float, float]]
    skin: int
    hair: int
    top: int
    legs: int
    shoe: int
    bare_arms: bool
    bare_legs: bool

    def limb(self, start: Vec, length: float, name: str, side: str) -> Vec:
        """Where a limb of `length` heights ends that begins at `start`."""
        forward, outward = self.angles[f"{side}_{name}"]
        return _step(start, length * self.tall, forward, (1 if side == "left" else -1) * outward)


THIGH, SHIN, UPPER_ARM, FOREARM = 0.245, 0.246, 0.176, 0.155  # lengths, as shares of the height
# How far in front of a joint its own flesh may lie, as a share of the height.
FLESH = {"shoulder": 0.045, "elbow": 0.032, "wrist": 0.026, "hip": 0.085, "knee": 0.042, "ankle": 0.036}


def _dress(w: World, seat: float) -> _Body:
    r = w.r
    tall, build = r.uniform(1.5, 1.92), r.uniform(0.85, 1.25)
    angles = _pose(w, seat)
    skin, hair = w.mat("skin"), w.mat("hair", scale=2.0)
    cloth = ("fabric", "fabric", "leather", "paint")
    top, legs, shoe = w.mat(r.choice(cloth)), w.mat(r.choice(cloth)), w.mat("leather", scale=2)
    bare_arms, bare_legs = r.random() < 0.4, r.random() < 0.25
    return _Body(tall, build, angles, skin, hair, top, legs, shoe, bare_arms, bare_legs)


def _hip_height(body: _Body, seat: float) -> float:
    if seat > 0:
        return seat + 0.09
    thigh, shin, ang = THIGH * body.tall, SHIN * body.tall, body.angles
    longer = max(
        thigh * math.cos(ang[s + "_thigh"][0]) + shin * math.cos(ang[s + "_shin"][0]) for s in ("left", "right")
    )
    return longer + 0.05 * body.tall * 0.9


def _torso(w: World, body: _Body, lean: float) -> Vec:
    """Trunk, shoulders and neck about the hips; gives the top of the chest."""
    tall, build, top = body.tall, body.build, body.top
    hw, sw, torso = 0.085 * tall * 0.62 * build, 0.118 * tall * build, 0.29 * tall
    chest = (0.0, torso * math.cos(lean), torso * math.sin(lean))
    wide, deep = sw * 0.98, 0.068 * tall * build
    up = pitch(lean)
    w.ball(0, 0.0, 0, hw * 1.75, 0.075 * tall, deep * 1.15, body.legs)
    w.ball(
        0,
        torso * 0.36,
        torso * 0.36 * math.sin(lean),
        wide * 0.78,
        torso * 0.42,
        deep * w.r.uniform(0.95, 1.3),
        top,
        up,
    )
    w.ball(0, torso * 0.74, torso * 0.72 * math.sin(lean), wide * 0.95, torso * 0.32, deep * 1.12, top, up)
    w.rod((-sw * 0.8, chest[1] * 0.97, chest[2]), (sw * 0.8, chest[1] * 0.97, chest[2]), 0.036 * tall, top)
    w.rod((0, chest[1], chest[2]), (0, chest[1] + 0.07 * tall, chest[2] + 0.01), 0.03 * tall, body.skin)
    return chest


def _arm(w: World, body: _Body, side: str, sh: Vec) -> tuple[Vec, Vec]:
    """From the shoulder down; gives elbow and wrist."""
    tall, fat, sleeve = body.tall, 0.5 + 0.5 * body.build, body.skin if body.bare_arms else body.top
    el = body.limb(sh, UPPER_ARM, "upper", side)
    wr = body.limb(el, FOREARM, "fore", side)
    w.ball(*sh, 0.036 * tall * fat, 0.036 * tall * fat, 0.036 * tall * fat, body.top)
    w.rod(sh, el, 0.031 * tall * fat, body.top, 0.75)
    w.ball(*el, 0.0235 * tall * fat, 0.0235 * tall * fat, 0.0235 * tall * fat, sleeve)
    w.rod(el, wr, 0.023 * tall * fat, sleeve, 0.68)
    w.rod(wr, body.limb(wr, 0.05, "fore", side), 0.017 * tall, body.skin)
    return el, wr


def _leg(w: World, body: _Body, side: str, hp: Vec) -> tuple[Vec, Vec]:
    """From the hip down; gives knee and ankle."""
    tall, fat, shin = body.tall, 0.5 + 0.5 * body.build, body.skin if body.bare_legs else body.legs
    kn = body.limb(hp, THIGH, "thigh", side)
    an = body.limb(kn, SHIN, "shin", side)
    w.rod(hp, kn, 0.05 * tall * fat, body.legs, 0.66)
    w.ball(*kn, 0.034 * tall * fat, 0.034 * tall * fat, 0.034 * tall * fat, shin)
    w.rod(kn, an, 0.033 * tall * fat, shin, 0.62)
    heel, toe = (an[0], an[1] - 0.022 * tall, an[2] - 0.01), (an[0], an[1] - 0.028 * tall, an[2] + 0.1 * tall * 0.9)
    w.rod(heel, toe, 0.022 * tall, body.shoe)
    return kn, an


def _slack(joint: str, tall: float) -> float:
    """Metres by which a surface may lie in front of a joint that is seen all the same."""
    part = joint.split("_")[-1]
    return FLESH[part] * tall * 1.25 if part in FLESH else 0.018


def person(w: World, fg: bool = True, seat: float = 0.0, fuzz: float = 0.0, label: bool = True) -> float:
    """A clothed figure with the 17 COCO joints, standing or sitting at height `seat`; gives the height of the eyes."""
    r = w.r
    body = _dress(w, seat)
    tall = body.tall
    lean, twist = (r.gauss(0.05, 0.1), r.gauss(0, 0.15))
    J: dict[str, Vec] = {}
    with w.thing("person", "person", fg, fuzz), w.at(0, _hip_height(body, seat), 0, twist):
        chest = _torso(w, body, lean)
        hw, sw = 0.085 * tall * 0.62 * body.build, 0.118 * tall * body.build
        for side, s in (("left", 1), ("right", -1)):
            sh, hp = (s * sw, chest[1] * 0.965, chest[2]), (s * hw, 0.0, 0.0)
            el, wr = _arm(w, body, side, sh)
            kn, an = _leg(w, body, side, hp)
            for name, p in (("shoulder", sh), ("elbow", el), ("wrist", wr), ("hip", hp), ("knee", kn), ("ankle", an)):
                J[f"{side}_{name}"] = w.point(*p)
        size = 0.068 * tall
        turn = matmul(yaw(r.gauss(0, 0.35)), matmul(pitch(r.gauss(0.0, 0.15)), roll(r.gauss(0, 0.08))))
        with w.at(0, chest[1] + 0.065 * tall + size * 1.0, chest[2] + 0.02 * tall, turn):
            for name, p in head(w, size, body.skin, body.hair).items():
                J[name] = w.point(*p)
            eyes = w.point(0, 0, 0)[1]
        if label:
            w.figure = ([J[n] for n in JOINTS], [_slack(n, tall) for n in JOINTS], w.obj)
    return eyes


def animal(w: World, fg: bool = True, fuzz: float = 0.0, size: float = 0.5) -> None:
    """A four-legged creature, `size` metres at the shoulder."""
    r, s = w.r, size
    with w.thing("animal", "horse" if size > 0.9 else "dog", fg, fuzz):
        m, n = w.mat("fur"), w.mat("fur")
        long, fat = s * r.uniform(0.45, 0.75), s * r.uniform(0.2, 0.34)
        leg = s * r.uniform(0.4, 0.62)
        w.ball(0, leg + fat * 0.6, 0, fat, fat * 0.95, long, m)
        w.ball(0, leg + fat * 0.75, long * 0.55, fat * 1.02, fat * 1.1, long * 0.5, m)
        w.ball(0, leg + fat * 0.65, -long * 0.6, fat * 0.98, fat * 1.02, long * 0.45, m)
        for x in (-1, 1):
            for z in (-0.7, 0.65):
                sway = r.gauss(0, 0.1) * s
                knee = (x * fat * 0.6, leg * 0.55, z * long + sway * 0.5)
                w.rod((x * fat * 0.6, leg + fat * 0.3, z * long), knee, fat * 0.4, m, 0.55)
                w.rod(knee, (x * fat * 0.6, 0.03 * s, z * long + sway), fat * 0.22, m, 0.75)
                w.ball(x * fat * 0.6, 0.035 * s, z * long + sway + 0.03 * s, fat * 0.24, 0.04 * s, fat * 0.36, n)
        hy, hz = leg + fat * r.uniform(1.6, 2.8), long * r.uniform(1.1, 1.4)
        w.rod((0, leg + fat * 0.9, long * 0.7), (0, hy, hz), fat * 0.62, m, 0.7)
        h = fat * r.uniform(0.6, 0.85)
        with w.at(0, hy, hz, matmul(yaw(r.gauss(0, 0.6)), pitch(r.gauss(0.1, 0.25)))):
            w.ball(0, 0, 0, h, h, h * 1.1, m)
            snout = r.uniform(0.5, 1.3)
            w.ball(0, -0.25 * h, h * 0.9, h * 0.5, h * 0.42, h * snout, n)
            dark = w.mat("ceramic", (0.02, 0.015, 0.015))
            w.ball(0, -0.15 * h, h * (0.85 + snout), h * 0.17, h * 0.13, h * 0.13, dark)
            for x in (-1, 1):
                w.ball(x * 0.42 * h, 0.2 * h, 0.88 * h, 0.14 * h, 0.15 * h, 0.12 * h, dark)
                if r.random() < 0.5:
                    w.tube(x * 0.55 * h, 0.95 * h, -0.05 * h, 0.26 * h, 0.42 * h, m, 0.0, 0, roll(-x * 0.25))
                else:
                    w.ball(x * 0.95 * h, 0.0, -0.05 * h, 0.13 * h, 0.55 * h, 0.3 * h, n, roll(x * 0.2))
        p = (0.0, leg + fat, -long)
        for k in range(4):
            q = (p[0] + r.gauss(0, 0.05) * s, p[1] + (0.04 + 0.05 * k) * s * r.uniform(-1, 1.5), p[2] - 0.12 * s)
            w.rod(p, q, fat * (0.2 - 0.03 * k), m)
            p = q


def bird(w: World, fg: bool = True, fuzz: float = 0.0, size: float = 0.15) -> None:
    s, r = size, w.r
    with w.thing("animal", "bird", fg, fuzz):
        m, n, k = w.mat("fur"), w.mat("paint", scale=3), w.mat("plastic", (0.6, 0.3, 0.05))
        w.ball(0, s * 1.1, 0, s * 0.55, s * 0.6, s * 0.95, m, pitch(-0.5))
        w.ball(0, s * 1.85, s * 0.65, s * 0.38, s * 0.38, s * 0.4, n)
        w.tube(0, s * 1.82, s * 1.15, s * 0.12, s * 0.2, k, 0, 0, pitch(math.pi / 2))
        for x in (-1, 1):
            w.ball(x * s * 0.5, s * 1.15, -s * 0.2, s * 0.12, s * 0.4, s * 0.85, n, pitch(-0.6))
            w.ball(x * s * 0.2, s * 1.95, s * 0.96, s * 0.07, s * 0.07, s * 0.07, w.mat("ceramic", (0.02, 0.02, 0.02)))
            w.rod((x * s * 0.2, 0, 0), (x * s * 0.2, s * 0.7, 0), s * 0.04, k)
        w.ball(0, s * 0.75, -s * 1.3, s * 0.22, s * 0.06, s * 0.6, n, pitch(r.uniform(-0.4, 0.1)))


def fish(w: World, fg: bool = True, size: float = 0.3) -> None:
    s, r = size, w.r
    with w.thing("animal", "fish", fg):
        m = w.mat(r.choice(("metal", "fur", "any")))
        w.ball(0, s * 0.35, 0, s * 0.2, s * 0.35, s * 0.9, m)
        for a in (0.6, -0.6):
            w.ball(0, s * 0.35 + a * s * 0.3, -s * 1.0, s * 0.03, s * 0.14, s * 0.3, m, pitch(a))
        w.sheet(0, s * 0.75, -s * 0.1, s * 0.12, s * 0.4, m, roll(math.pi / 2), 2)
        for x in (-1, 1):
            w.ball(x * s * 0.12, s * 0.42, s * 0.65, s * 0.05, s * 0.06, s * 0.06, w.mat("ceramic", (0.02, 0.02, 0.02)))
