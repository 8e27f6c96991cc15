"""An executed notebook as one HTML file and one typeset PDF: no TeX, no browser, no network.

The notebook becomes one Markdown text in which every figure and table has its number; pandoc writes
it as HTML with MathML, and as Typst, which its wheel sets into a PDF. What the two show differently
is in ``templates/report.lua``; how they look, in ``templates/report.html`` and ``report.typ``.

What the author of a notebook writes
------------------------------------
- The first heading (``# ...``) is the title. ``## ...`` are sections, numbered here, never by
  hand; headings that begin with Abstract, Appendix, References or Acknowledg... bear no number.
- ``figure("figures/demo/heatmap", "CKA of ...", "fig:heatmap")`` or ``table(frame, "Ratios ...",
  "tbl:calibration")`` in the last line of a cell or in ``display(...)``. Captions are Markdown
  with ``$formulas$``. Numbers follow the order of appearance, or ``number="2"`` fixes one.
- ``[@fig:heatmap]``, ``[@tbl:calibration]`` and ``[@sec:proxy-calibration]`` (the heading in small
  letters with hyphens) become linked "Figure 2", "Table 1", "section 3.1"; ``[@kornblith2019]``
  is a citation from the bibliography, listed under References.
- Prose with computed numbers is ``display(Markdown(f"..."))``. Raw HTML is shown as text.
- A cell tagged ``remove`` vanishes. Code is folded in the HTML and absent from the PDF; that of a
  cell tagged ``show-code`` is unfolded, and in the PDF too. stderr and progress bars never appear.
- A figure with a file of its places beside it (``.json``, which `figure_style.save` writes) answers
  the pointer in the HTML, by ``templates/pointer.js``; without JavaScript it is the same picture.
- Captions end with the notebook, cell and file that a figure or table is from: a link to the
  repository at the commit, or, without one, to the executed copy beside the report.
- Paths are relative to the project root, as in every notebook. Images come from files, never from
  the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import typst

from realign_utils.errors import UserError
from realign_utils.executed import MARKDOWN, Outputs, assemble, name_exhibits, read_executed
from realign_utils.exhibits import EXHIBIT, Exhibit, figure, literal, table
from realign_utils.pandoc import convert
from realign_utils.store import write_atomically, write_text

__all__ = ["EXHIBIT", "Exhibit", "figure", "render", "table"]

TEMPLATES = Path(__file__).with_name("templates")
BIBLIOGRAPHY = TEMPLATES / "references.bib"
_HTML = ("-t", "html5", "--template", str(TEMPLATES / "report.html"), "--mathml",
         "--embed-resources", f"--resource-path=.:{TEMPLATES}", "--toc", "--toc-depth=3")  # fmt: skip
_TYPST = ("-t", "typst-citations", "--template", str(TEMPLATES / "report.typ"),
          "--syntax-highlighting=idiomatic")  # fmt: skip


def render(
    notebook: str | Path,
    *,
    html: str | Path,
    pdf: str | Path,
    title: str | None = None,
    subtitle: str | None = None,
    authors: Sequence[str] = (),
    date: str | None = None,
    commit: str | None = None,
    source_url: str | None = None,
    bibliography: str | Path = BIBLIOGRAPHY,
    root: str | Path = ".",
) -> None:
    """Write an executed notebook as a report, in two forms with the same numbers.

    Parameters
    ----------
    notebook : path
        An executed notebook; the module's docstring says what may stand in it.
    html, pdf : path
        The files to write; where the report cannot be set, both stay as they were.
    title : str, optional
        By default the notebook's first heading.
    subtitle, authors, date, commit : optional
        Stand below the title; nothing is taken from the clock, so equal input gives equal bytes.
    source_url : str, optional
        The repository's page; with a commit, the sources in captions become links.
    bibliography : path
        BibTeX file of the works that may be cited.
    root : path
        The folder that the paths of images are relative to.

    Raises
    ------
    UserError
        If the notebook has not been executed or ended in an error, an image is missing or remote,
        a reference, citation or formula cannot be resolved, or a file cannot be written.
    """
    notebook, root, bibliography = (Path(path).resolve() for path in (notebook, root, bibliography))
    cells = read_executed(notebook)
    blob_url = f"{source_url.rstrip('/')}/blob/{commit}" if source_url and commit else None
    metadata = {
        "title": title and literal(title),
        "subtitle": subtitle and literal(subtitle),
        "author": [literal(author) for author in authors],
        "stamp": _stamp(date, commit, source_url),
        "works": [literal(key) for key in works_of(bibliography)],
        "link-citations": True,
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        beside = Path(html).resolve().parent
        outputs = Outputs(notebook, name_exhibits(cells), folder, root, beside, blob_url)
        text = assemble(cells, outputs.show)
        metadata_file = folder / "metadata.json"
        metadata_file.write_text(json.dumps({k: v for k, v in metadata.items() if v}))
        options = [f"--metadata-file={metadata_file}", f"--bibliography={bibliography}"]
        page = _write(text, (*_HTML, *_script(text, folder)), options, root)
        document = _typeset(_write(text, _TYPST, options, root), folder)
    write_text(html, page)
    write_atomically(pdf, lambda temporary: temporary.write_bytes(document))


def _script(text: str, folder: Path) -> list[str]:
    """Options that bring in the script of the figures that answer the pointer, where one does."""
    if not re.search(r'^:+ \{#fig:.* pointer="', text, re.MULTILINE):
        return []
    page = folder / "pointer.html"
    page.write_text(f"<script>\n{(TEMPLATES / 'pointer.js').read_text()}</script>\n")
    return [f"--include-after-body={page}"]


def works_of(bibliography: Path) -> list[str]:
    """The keys that may be cited."""
    try:
        text = bibliography.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read bibliography {bibliography}: {error.strerror}") from error
    return re.findall(r"^@\w+\s*\{\s*([^,\s]+)", text, re.MULTILINE)


def _stamp(date: str | None, commit: str | None, source_url: str | None) -> str:
    """Markdown of the line below the title."""
    parts = [literal(date)] if date else []
    if commit:
        url = f"{source_url.rstrip('/')}/tree/{commit}" if source_url else None
        parts.append(f"commit [{commit[:10]}]({url})" if url else f"commit {commit[:10]}")
    return " · ".join(parts)


def _write(markdown: str, form: Sequence[str], options: Sequence[str], root: Path) -> str:
    filters = ["--lua-filter", str(TEMPLATES / "report.lua"), "--citeproc"]
    return convert(markdown, "-f", MARKDOWN, "--columns=99999", "--standalone", *form, *filters,
                   *options, folder=root)  # fmt: skip


def _typeset(source: str, folder: Path) -> bytes:
    file = folder / "report.typ"
    file.write_text(source, encoding="utf-8")
    try:
        return typst.compile(str(file), root="/", format="pdf", ignore_system_fonts=True)
    except typst.TypstError as error:
        raise UserError(f"typst cannot set the PDF: {' '.join(str(error).split())}") from error
