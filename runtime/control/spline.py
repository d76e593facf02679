"""Curves with a continuous second derivative: uniform cubic B-splines and quintic error polynomials. Pure.

A B-spline takes the actions as control points (de Boor, "A Practical Guide to Splines", 1978): at the time of
action i it runs through (a[i-1] + 4 a[i] + a[i+1]) / 6; it stays in the hull of the actions around it and
smooths what jitters from step to step. The quintic is the Hermite polynomial that takes a difference of
position, velocity and acceleration to zero within a given time (VLA-RAIL, arXiv 2512.24673, joins chunks in
this way).
"""

from __future__ import annotations

from .executor import Bridge, Path

Curve = tuple[tuple[float, float, float], ...]
"""[joints]: position, velocity, acceleration (units per second)"""


def spline_at(path: Path, time_ns: int) -> Curve:
    """The B-spline of a path at one time; before its origin and after its end it stands still there.

    Beyond both ends the control points go on in a straight line, so the curve begins and ends at the first
    and last action.
    """
    actions, dt_s = path.actions, path.dt_ns * 1e-9
    last = len(actions) - 1
    elapsed = time_ns - path.origin_ns
    if elapsed < 0 or last < 1:
        return tuple([(x, 0.0, 0.0) for x in actions[0]])
    if elapsed >= last * path.dt_ns:
        return tuple([(x, 0.0, 0.0) for x in actions[last]])
    i = elapsed // path.dt_ns
    u = (elapsed - i * path.dt_ns) / path.dt_ns
    b, c = actions[i], actions[i + 1]
    a = actions[i - 1] if i > 0 else [2 * x - y for x, y in zip(b, c, strict=True)]
    d = actions[i + 2] if i + 2 <= last else [2 * y - x for x, y in zip(b, c, strict=True)]
    u2, w = u * u, 1.0 - u
    w2 = w * w
    p0, p3 = w2 * w / 6, u2 * u / 6
    p1, p2 = (3 * u2 * u - 6 * u2 + 4) / 6, (3 * w2 * w - 6 * w2 + 4) / 6
    v0, v3 = -w2 / 2 / dt_s, u2 / 2 / dt_s
    v1, v2 = (1.5 * u2 - 2 * u) / dt_s, (2 * w - 1.5 * w2) / dt_s
    s = 1 / (dt_s * dt_s)
    return tuple(
        [
            (
                p0 * x0 + p1 * x1 + p2 * x2 + p3 * x3,
                v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3,
                s * (w * (x0 - 2 * x1 + x2) + u * (x1 - 2 * x2 + x3)),
            )
            for x0, x1, x2, x3 in zip(a, b, c, d, strict=True)
        ]
    )


def bridge_at(bridge: Bridge, time_ns: int) -> Curve:
    """What is left of the difference at one time: all of it at the start, none after the duration."""
    x = (time_ns - bridge.start_ns) / bridge.duration_ns
    if x >= 1:
        return ((0.0, 0.0, 0.0),) * len(bridge.error)
    x = max(0.0, x)
    t = bridge.duration_ns * 1e-9
    x2 = x * x
    x3, x4, x5 = x2 * x, x2 * x2, x2 * x2 * x
    p0, p1, p2 = 1 - 10 * x3 + 15 * x4 - 6 * x5, x - 6 * x3 + 8 * x4 - 3 * x5, (x2 - 3 * x3 + 3 * x4 - x5) / 2
    v0, v1, v2 = (
        -30 * x2 + 60 * x3 - 30 * x4,
        1 - 18 * x2 + 32 * x3 - 15 * x4,
        x - 4.5 * x2 + 6 * x3 - 2.5 * x4,
    )
    a0, a1, a2 = -60 * x + 180 * x2 - 120 * x3, -36 * x + 96 * x2 - 60 * x3, 1 - 9 * x + 18 * x2 - 10 * x3
    return tuple(
        [
            (
                p0 * dp + t * (p1 * dv + t * p2 * da),
                v0 * dp / t + v1 * dv + t * v2 * da,
                (a0 * dp / t + a1 * dv) / t + a2 * da,
            )
            for dp, dv, da in bridge.error
        ]
    )


def difference(a: Curve, b: Curve) -> Curve:
    """`a - b`, joint by joint."""
    return tuple([(p - q, v - w, x - y) for (p, v, x), (q, w, y) in zip(a, b, strict=True)])


def total(a: Curve, b: Curve) -> Curve:
    """`a + b`, joint by joint."""
    return tuple([(p + q, v + w, x + y) for (p, v, x), (q, w, y) in zip(a, b, strict=True)])
