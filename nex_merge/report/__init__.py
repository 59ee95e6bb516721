"""A run as one HTML page that needs no network."""

from nex_merge.report.page import write_report

__all__ = ["write_report"]
