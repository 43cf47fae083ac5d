"""What tests of reports share: text that is hard to quote, and readers that find what is wrong with a drawing or a page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

HOSTILE = "<script>alert('x')</script> & \"quoted\" \x00\x07 ]]> {{7*7}} </svg><!-- \u2028"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> ET.Element:
    """The drawing, read as XML: it has a title, a description, and no number that is none."""
    root = ET.fromstring(svg)
    assert root.find(f"{SVG}title") is not None and root.find(f"{SVG}desc") is not None
    assert not re.search(r'"[^"]*\b(?:nan|inf)\b[^"]*"', re.sub(r"<(title|desc|text)[^>]*>.*?</\1>", "", svg))
    return root


def embedded(html: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S).group(1))


class Tags(HTMLParser):
    """The elements of a page, what they nest in, and the text between."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self, html: str):
        super().__init__()
        self.open, self.seen, self.ids, self.scripts = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def whole(html: str) -> Tags:
    """The page: its elements nest, ids are used once, nothing is fetched, no handler is written into an element."""
    tags = Tags(html)
    assert not tags.open and len(set(tags.ids)) == len(tags.ids)
    for tag, attributes in tags.seen:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "action", "srcdoc"} & set(attributes) and not any(
            name.startswith("on") for name in attributes
        )
        assert attributes.get("href", "#").startswith("#")
    outside = set(re.findall(r"https?://[^\s\"'<]+", html)) - {"http://www.w3.org/2000/svg"}
    assert not outside and "@import" not in html and "url(" not in html.split("</style>")[0]
    for svg in re.findall(r"<svg .*?</svg>", html, re.S):
        drawn(svg)
    return tags
