"""Bar charts as values: the place and height of each bar, for a template that draws SVG. Pure.

Not here: SVG (`relay/pages/templates/plot.html`), the data (`relay.pages.storage`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# SVG and no script, because the content security policy allows neither inline script nor inline style.
WIDTH, HEIGHT = 720, 200
LEFT, BOTTOM, TOP = 70, 24, 8
"""Room for the numbers at the side and the days below, and above the highest bar."""


@dataclass(frozen=True)
class Bar:
    """A rectangle, and its value in words. Lengths are in units of the plot's `width` and `height`."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    words: str


@dataclass(frozen=True)
class Plot:
    """A whole plot; `name` is unique on its page, `description` sums it up in a sentence."""

    name: str
    title: str
    description: str
    bars: tuple[Bar, ...]
    heights: tuple[Tick, ...]
    labels: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = HEIGHT - BOTTOM


def plot(
    name: str, points: Sequence[tuple[str, int]], *, title: str, description: str, words: Callable[[int], str] = str
) -> Plot:
    """Lay out one bar for each point (label, value), in order; `words` writes a value for people."""
    top = ceiling(max((value for _, value in points), default=0))
    room, base = HEIGHT - BOTTOM - TOP, HEIGHT - BOTTOM
    step = (WIDTH - LEFT) / max(1, len(points))
    bars = tuple(
        Bar(
            x=round(LEFT + number * step + step * 0.1, 2),
            y=round(base - value / top * room, 2),
            width=round(step * 0.8, 2),
            height=round(value / top * room, 2),
            words=f"{label}: {words(value)}",
        )
        for number, (label, value) in enumerate(points)
    )
    heights = tuple(Tick(base - share * room, words(round(top * share))) for share in (0.0, 0.5, 1.0))
    labels = tuple(Tick(round(LEFT + (at + 0.5) * step, 2), points[at][0]) for at in _labelled(len(points)))
    return Plot(name, title, description, bars, heights, labels)


def ceiling(value: int) -> int:
    """Return the top of the axis: the next 1, 2, 4 or 8 times a power of ten that is not below `value`; 2 at least."""
    # All of these have a whole half, which is the label in the middle.
    power = 1
    while True:
        for factor in (1, 2, 4, 8):
            if factor * power >= max(2, value):
                return factor * power
        power *= 10


def _labelled(count: int) -> list[int]:
    return sorted({0, count // 2, count - 1}) if count else []  # three dates are what fits below
