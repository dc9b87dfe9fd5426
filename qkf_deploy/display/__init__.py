"""How numbers, tables and objects are shown: text, HTML and data frames. The lowest room: it knows no network.

Standard library only; pandas is loaded by :mod:`qkf_deploy.display.frames` when a data frame is asked for.
"""

from qkf_deploy.display.overview import Overview, SelfDescribing, largest
from qkf_deploy.display.tables import Cell, Column, Field, Sheet, tabulate, to_html, to_text

__all__ = [
    "Cell",
    "Column",
    "Field",
    "Overview",
    "SelfDescribing",
    "Sheet",
    "largest",
    "tabulate",
    "to_html",
    "to_text",
]
