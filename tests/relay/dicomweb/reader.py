"""Reads a page as people and machines do: its words in order, and its tags."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects what a page says: its text in order, and every tag with its attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def links(self, beginning: str) -> list[str]:
        """The addresses of all links that begin so."""
        return [str(link["href"]) for link in self.all("a") if str(link.get("href")).startswith(beginning)]
