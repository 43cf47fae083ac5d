"""The ground of every chart: a canvas of SVG, ticks, numbers as words, and text that fits.

Colours are classes with a light value as an attribute: a page gives the classes its own colours, dark ones too, and a chart that is
taken out of the page is right by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from html import escape

TONES = {
    "c0": "#5f6b7a", "c1": "#1f5fa8", "c2": "#b4540a", "c3": "#18794e", "c4": "#7c3fbf", "c5": "#8a6100", "c6": "#b8265a",
    "c7": "#0f7280", "ink": "#1b1f24", "soft": "#5a6472", "grid": "#dfe3e8", "paper": "#ffffff",
}  # fmt: skip
SERIES = ("c1", "c2", "c3", "c4", "c7", "c6", "c5", "c0")
SIZE = 13  # of text, pixels
LETTER = 0.56  # of the size, a letter's mean width


def plain(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def safe(text: str) -> str:
    """Text from data, for HTML and SVG, between tags or in quotes."""
    return escape(plain(text), quote=True)


def slug(text: str) -> str:
    """A title as a name: of an element, of a file."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "part"


def free_name(title: str, taken: Container[str]) -> str:
    """A title's name, numbered where it is taken (titles in letters of no name are all `part`)."""
    name, count = slug(title), 1
    while name in taken:
        count += 1
        name = f"{slug(title)}-{count}"
    return name


def number(value: float, digits: int = 4) -> str:
    """A number in few characters: `digits` that count, no zeros behind, thousands in full."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{max(0, digits - 2)}e}".split("e")
        short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{short}e{int(exponent)}".replace("-", "−")
    text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    return text.replace("-", "−")


def fit(text: str, width: float, size: float = SIZE) -> str:
    """Text cut to a width in pixels, by the mean width of a letter."""
    most = max(2, int(width / (LETTER * size)))
    return text if len(text) <= most else text[: most - 1] + "…"


def _round(value: float) -> str:
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


class Canvas:
    """Marks on a sheet of `width` × `height` pixels, in the order in which they are drawn."""

    def __init__(self, width: int, height: float):
        self.width, self.height = width, math.ceil(height)
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", tone: str = "ink", size: float = SIZE, bold: bool = False
    ) -> None:  # fmt: skip
        """A line of text; y is its base line."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text class="f-{tone}" x="{_round(x)}" y="{_round(y)}" text-anchor="{anchor}" font-size="{size:g}"{weight} '
            f'fill="{TONES[tone]}">{safe(text)}</text>'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, tone: str = "grid", width: float = 1, dash: str = ""
    ) -> None:
        """A straight line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line class="s-{tone}" x1="{_round(x1)}" y1="{_round(y1)}" x2="{_round(x2)}" y2="{_round(y2)}" '
            f'stroke="{TONES[tone]}" stroke-width="{width:g}"{dashed}/>'
        )

    def path(
        self, points: Sequence[tuple[float, float]], *, tone: str, width: float = 2, dash: str = "", opacity: float = 1
    ) -> None:
        """A line through points."""
        if not points:
            return
        through = "M" + "L".join(f"{_round(x)} {_round(y)}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        faint = f' stroke-opacity="{opacity:g}"' if opacity < 1 else ""
        self.parts.append(
            f'<path class="s-{tone}" d="{through}" fill="none" stroke="{TONES[tone]}" stroke-width="{width:g}" '
            f'stroke-linejoin="round"{dashed}{faint}/>'
        )

    def area(self, points: Sequence[tuple[float, float]], *, tone: str, title: str = "") -> None:
        """A filled shape."""
        through = "M" + "L".join(f"{_round(x)} {_round(y)}" for x, y in points) + "Z"
        said = f"<title>{safe(title)}</title>" if title else ""
        self.parts.append(f'<path class="f-{tone}" d="{through}" fill="{TONES[tone]}">{said}</path>')

    def box(
        self, x: float, y: float, width: float, height: float, *, tone: str, opacity: float = 1, title: str = "", more: str = ""
    ) -> None:  # fmt: skip
        """A rectangle; `title` is shown under the pointer."""
        faint = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
        self.parts.append(
            f'<rect class="f-{tone}" x="{_round(x)}" y="{_round(y)}" width="{_round(width)}" height="{_round(height)}" '
            f'fill="{TONES[tone]}"{faint}{more}>' + (f"<title>{safe(title)}</title>" if title else "") + "</rect>"
        )

    def mark(self, x: float, y: float, kind: str, *, tone: str, size: float = 5, title: str = "", filled: bool = True) -> None:  # fmt: skip
        """A point: `dot`, `up`, `down` (triangles), or `ring`."""
        said = f"<title>{safe(title)}</title>" if title else ""
        if kind in ("up", "down"):
            s = -size if kind == "up" else size
            points = ((x, y + 1.2 * s), (x - 1.1 * size, y - 0.8 * s), (x + 1.1 * size, y - 0.8 * s))
            corners = " ".join(f"{_round(a)},{_round(b)}" for a, b in points)
            self.parts.append(f'<polygon class="f-{tone}" points="{corners}" fill="{TONES[tone]}">{said}</polygon>')
            return
        ring = kind == "ring" or not filled
        fill = f'class="f-paper s-{tone}" fill="#ffffff"' if ring else f'class="f-{tone} s-paper" fill="{TONES[tone]}"'
        edge = f'stroke="{TONES[tone] if ring else "#ffffff"}" stroke-width="{2 if ring else 1}"'
        self.parts.append(f'<circle {fill} cx="{_round(x)}" cy="{_round(y)}" r="{size:g}" {edge}>{said}</circle>')

    def svg(self, name: str, title: str, desc: str, *, role: str = "img", more: str = "") -> str:
        """The whole drawing, with a name and a description for those who do not see it."""
        id = f"{name}-{self.width}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="{role}" aria-labelledby="{id}-t {id}-d" '
            f"font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\"{more}>"
            f'<title id="{id}-t">{safe(title)}</title><desc id="{id}-d">{safe(desc)}</desc>'
            f'<rect class="f-paper" width="{self.width}" height="{self.height}" fill="#ffffff"/>{"".join(self.parts)}</svg>\n'
        )


class Scale:
    """Numbers from `low` to `high` as pixels from `start` to `end`; logarithmic where that is asked and all are above 0."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False):
        self.log = log and low > 0
        if low == high:
            room = abs(low) * 0.1 or 1.0
            low, high = (low / 1.5, high * 1.5) if self.log else (low - room, high + room)
        self.low, self.high, self.start, self.end = low, high, start, end

    def at(self, value: float) -> float:
        """Where a value is."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(max(value, self.low * 1e-3)) if self.log else value
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers of the range, about `count` of them."""
        if self.log:
            return log_ticks(self.low, self.high, count)
        return round_ticks(self.low, self.high, count)


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, from low to high."""
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten, and 2 and 5 of them where there are few; the ends' own numbers where there would be none."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for within in ((1,), (1, 3), (1, 2, 5)):
        found = [m * 10.0**p for p in powers for m in within if low * 0.999 <= m * 10.0**p <= high * 1.001]
        if len(found) >= min(3, count):
            break
    most = max(2, count + 1)
    return (found[:: math.ceil(len(found) / most)] or [low, high]) if found else [low, high]
