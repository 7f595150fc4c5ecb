"""What ran where: the report, and the file or the lines at the end of a program that ask for it."""

from .report import Report, counted, report

__all__ = ["Report", "counted", "report"]
