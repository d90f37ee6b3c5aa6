"""Colours, fonts and number formats: how the sheets styles."""

from typing import Any

from xlgpt.xlsx.ranges import Range

INK, MUTED, LINE = "#1F2933", "#6B7785", "#D5DBE1"
FILL = {"input": "#FFF4CC", "activation": "#E8F1FB", "weight": "#FCEBDD", "answer": "#DDF3E4", "plain": "#FFFFFF"}
ACCENT = {"input": "#B7791F", "activation": "#2563A8", "weight": "#C05621", "answer": "#237A4B", "plain": "#2563A8"}
PIECES = ("#FFE8B8", "#D6E9FA", "#DDF3E4", "#F5DDE8", "#E6E0F5")  # tokens side by side
SERIES = ("#2563A8", "#C05621", "#237A4B", "#7A4FA3", "#B7791F", "#3B8EA5")  # of a chart
AXIS: dict[str, dict[str, Any]] = {  # how a chart's axis shows the values of a band of that format
    "count": {"num_format": "#,##0"},
    "share": {"min": 0, "max": 1, "major_unit": 0.25, "num_format": "0%"},
}
ALARM = ("#FBD5D5", "#B42318")
SHARE_COLOURS = ("#FFFFFF", "#5B9BD5")  # attention patterns, from 0 to 1
SHADES = 10  # between the two, for cells that take their colour from others
WEIGHTS = ("#E8A77C", "#FDF6F0", "#9CC8AC")  # weights, from negative over 0 to positive


class Styles:
    """The formats of one workbook. XlsxWriter numbers them; each is made once."""

    def __init__(self, book: Any):
        self._book = book
        self.title = self.format(bold=True, font_size=16)
        self.note = self.format(font_color=MUTED)
        self.mono = self.format(font_name="Consolas", font_size=10, font_color=MUTED)
        self.link = self.format(font_color=ACCENT["activation"], underline=1)
        self.label = self.format(font_color=MUTED, font_size=10, align="left", num_format=";;;@")
        self.place = self.format(font_color=MUTED, font_size=10, align="center", num_format="0;;0")
        self.column_title = self.format(
            font_color=MUTED, font_size=9, bottom=1, bottom_color=LINE, align="right", num_format="0;;0;@"
        )
        self.key_title = self.format(
            font_color=MUTED, font_size=9, bottom=1, bottom_color=LINE, align="right", num_format=";;;@"
        )
        self.head_title = self.format(font_color=ACCENT["activation"], font_size=10, bold=True, left=1, left_color=LINE)
        self.heading = {kind: self.format(bold=True, font_size=12, font_color=ACCENT[kind]) for kind in ACCENT}
        self.number = {kind: self._cell(kind, num_format="0.000") for kind in FILL}
        self.whole = {kind: self._cell(kind, num_format="0;;0") for kind in FILL}
        self.plain = {kind: self._cell(kind, num_format="General") for kind in FILL}
        self.positive = {kind: self._cell(kind, num_format="0;;") for kind in FILL}
        self.signed = {kind: self._cell(kind, num_format="0.000;-0.000;") for kind in FILL}
        self.count = {kind: self._cell(kind, num_format="#,##0") for kind in FILL}
        self.text = {kind: self._cell(kind, num_format="@" if kind == "input" else ";;;@", indent=1) for kind in FILL}
        # LibreOffice shows 0 for a saved text that is empty, until it calculates: no share is 0, so 0 is not shown.
        self.share = {kind: self._cell(kind, num_format="0.0%;-0.0%;") for kind in FILL}

        self.cells = {
            "number": self.number,
            "whole": self.whole,
            "plain": self.plain,
            "signed": self.signed,
            "positive": self.positive,
            "count": self.count,
            "id": self.whole,
            "text": self.text,
            "share": self.share,
        }
        self.alarm = self.format(bg_color=ALARM[0], font_color=ALARM[1])
        self.well = self.format(bg_color=FILL["answer"], font_color=ACCENT["answer"])
        self.piece = self.format(num_format=";;;@", font_size=12, align="center", shrink=True)
        self.over = self.format(bold=True, font_size=10, bottom=1, bottom_color=LINE)
        self.small = self.format(font_name="Consolas", font_size=8, font_color=MUTED)
        self.sentence = self.format(font_size=8, font_color=MUTED, text_wrap=True, valign="top")
        self.note_top = self.format(font_size=10, font_color=MUTED, valign="top")
        self.start = self.format(font_size=9, font_color=MUTED, italic=True, align="right")

    def format(self, **properties: Any) -> Any:
        """A cell format in the workbook's font."""
        return self._book.add_format(
            {"font_name": "Calibri", "font_size": 11, "font_color": INK, "valign": "vcenter", **properties}
        )

    def _cell(self, kind: str, **properties: Any) -> Any:
        border = {"border": 1, "border_color": LINE} if kind in ("input", "answer") else {}
        return self.format(bg_color=FILL[kind], font_size=10, **border, **properties)


def number_of(style: Any) -> int:
    """The number by which a file knows a style; one that stands in for XlsxWriter's has none."""
    return int(style._get_xf_index())


def shade(share: float) -> str:
    """The colour between the two of SHARE_COLOURS that a share from 0 to 1 has."""
    low, high = (bytes.fromhex(colour[1:]) for colour in SHARE_COLOURS)
    return "#" + bytes(round(a + share * (b - a)) for a, b in zip(low, high, strict=True)).hex()


def colour_verdicts(worksheet: Any, styles: Styles, cells: Range) -> None:
    """Cells red that say NOT, and green that say what this program does.

    By what a cell says itself: in manual mode LibreOffice calculates no formula that a format depends on.
    """
    corners = (cells.row, cells.column, cells.row + cells.height - 1, cells.column + cells.width - 1)
    for first, last, style in (('"NOT"', '"NOU"', styles.alarm), ('"This"', '"Thit"', styles.well)):
        rule = {"type": "cell", "criteria": "between", "minimum": first, "maximum": last, "format": style}
        worksheet.conditional_format(*corners, rule)
