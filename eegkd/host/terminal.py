"""A terminal that shows text as it is."""

import copy
from typing import Any

from rich.console import Console
from rich.text import Text

from eegkd.host.text import visible


class Terminal(Console):
    """A console of rich that reads no markup and no emoji codes, and shows all letters.

    What it prints, and the cells and titles of tables, pass through `visible`. Style is
    given by rich's `Text`, as `bold` makes it. No other console is made in the library.
    """

    def __init__(self, **options: Any) -> None:
        """Makes a console with the options of rich's."""
        super().__init__(**options, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turns what is printed into rich's text."""
        return super().render_str(visible(text), **options)


def as_terminal(console: Console | None, **options: Any) -> Terminal:
    """Returns a terminal that writes, or records, where another console does.

    Without one it has the given options.
    """
    if console is None:
        return Terminal(**options)
    made = copy.copy(console)
    made.__class__ = Terminal
    made._markup = made._emoji = False
    return made  # type: ignore[return-value]


def bold(text: str) -> Text:
    """Formats text in bold, to which more can be added."""
    return Text.assemble((visible(text), "bold"))
