"""A page as a browser's parser sees it: elements, attributes, texts, and scripts apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class PageReader(HTMLParser):
    """What is in a page.

    Attributes:
        elements: Name and attributes of every start tag.
        texts: What a reader sees.
        scripts: Attributes and content of each script.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attrs, content = self.scripts[-1]
            self.scripts[-1] = (attrs, content + data)
        elif self._inside != "style" and data.strip():
            self.texts.append(data.strip())

    @property
    def figures(self) -> list[dict[str, Any]]:
        """What the page's script draws."""
        [content] = [text for attrs, text in self.scripts if attrs.get("id") == "figures"]
        found: list[dict[str, Any]] = json.loads(content)
        return found

    def drawn(self, name: str) -> list[dict[str, Any]]:
        """The figures of one kind."""
        places, kind = [], None
        for _, attrs in self.elements:
            kind = attrs.get("data-figure", kind)
            if "data-plot" in attrs and kind == name:
                places.append(int(attrs["data-plot"] or 0))
        return [self.figures[place] for place in places]

    def all(self, tag: str, **attrs: str) -> list[dict[str, str | None]]:
        """Attributes of the elements of that name and those attributes."""
        wanted = {key.replace("_", "-"): value for key, value in attrs.items()}
        return [a for name, a in self.elements if name == tag and wanted.items() <= a.items()]
