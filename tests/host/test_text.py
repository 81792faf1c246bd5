"""Names as text: what each reader is given, and what a terminal then shows."""

import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from eegkd.host.terminal import Terminal, as_terminal, bold
from eegkd.host.text import for_markdown, plain, visible

ROOT = Path(__file__).parents[2]
NAMES = (
    "[/red] and [bold]b[/bold]",
    ":smile: [link=file:///]x[/link] \\[",
    "$x^2$ and $\\frac{",
    "<script>alert(1)</script> &amp;",
    "Zoë Müller, Łódź",
    "נבדק שתיים",
    "中文 ไทย",
)
"""Names that are more than letters to some reader, and stay as they are."""


@pytest.mark.parametrize("name", NAMES)
def test_what_shows_stays(name):
    assert visible(name) == plain(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\rb\x00\x9b", "a\\rb\\x00\\x9b"),
        ("gpj.\u202efdp", "gpj.\\u202efdp"),
        ("caf\udce9.edf", "caf\\udce9.edf"),
        ("a\u2028b\ufeff", "a\\u2028b\\ufeff"),
        ("a\u00a0b\u3000c", "a b c"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\nb", "a\nb"),
    ],
)
def test_what_does_not_show_is_written_out(name, shown):
    assert visible(name) == shown
    assert plain(name) == shown.replace("\n", "\\n")


def test_a_long_name_is_cut_to_the_room_there_is():
    assert plain("x" * 200) == "x" * 59 + "…"
    assert plain("x" * 60) == "x" * 60
    assert plain("a" * 11 + "\x1b", 12) == "a" * 11 + "…"
    assert plain(12) == "12"


def test_markdown_reads_nothing_in_a_name():
    assert for_markdown("small_net of a_a") == "small_net of a_a"
    assert for_markdown("__init__ *b* `c`") == "\\_\\_init\\_\\_ \\*b\\* \\`c\\`"
    assert for_markdown("<b>[x](y)|$z$") == "&lt;b>\\[x](y)\\|\\$z\\$"
    assert for_markdown("&lt;b>\n# c\\") == "&amp;lt;b> # c\\\\"


def shown(*printed, **options):
    file = io.StringIO()
    terminal = Terminal(file=file, width=120, **options)
    for each in printed:
        terminal.print(each, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("name", [*NAMES, "a\x1b[2Jb", "caf\udce9"])
def test_a_terminal_shows_names_in_lines_cells_and_titles(name):
    table = Table(title=name, caption=name)
    table.add_column(name)
    table.add_row(name)
    text = shown(f"Wrote {name}", table)
    assert text.count(visible(name)) == 5
    assert "\x1b" not in text


def test_bold_text_is_styled_and_read_as_it_is():
    text = shown(bold("[red]\x1b") + " x", force_terminal=True, color_system="standard")
    assert text == "\x1b[1m[red]\\x1b\x1b[0m x\n"


def test_a_console_of_a_user_shows_names_and_still_records():
    console = Console(record=True, width=60, file=io.StringIO())
    as_terminal(console).print("[/red] [bold]b :smile:\x1b")
    assert console.export_text() == "[/red] [bold]b :smile:\\x1b\n"
    console.print("[bold]b[/bold]")
    assert console.export_text() == "b\n"


def test_no_other_console_is_made_in_the_library():
    own = ROOT / "eegkd/host/terminal.py"
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "eegkd").rglob("*.py")
        if path != own and re.search(r"\bConsole\(|\[/?bold\]", path.read_text())
    ]
    assert not found


SCRIPT = """
import logging, sys
from eegkd.host.terminal import Terminal
from eegkd.host.text import tolerate_output
tolerate_output()
logging.getLogger("x").warning("%s is long", "a\\x1b[2J中.edf")
Terminal(width=40).print("中 [/x] \\udce9")
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "cp1252"])
def test_letters_that_a_terminal_lacks_end_no_program(encoding):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        cwd=ROOT,
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
    )
    letter = "中" if encoding == "utf-8" else "\\u4e2d"
    assert done.stdout.decode(encoding) == f"{letter} [/x] \\udce9\n"
    assert done.stderr.decode(encoding) == f"a\\x1b[2J{letter}.edf is long\n"
    assert done.returncode == 0


def test_logs_of_a_program_that_has_its_own_handlers_are_left_alone(caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("x").warning("a\x1b")
    assert caplog.messages == ["a\x1b"]
