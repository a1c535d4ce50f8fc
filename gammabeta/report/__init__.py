"""Runs to one HTML page, see page.py; `answers` are its sentences on the paper's questions."""

from gammabeta.report.page import check_out, report_html, write_report
from gammabeta.sentences import answer, share
from gammabeta.store import list_runs

__all__ = ["answer", "check_out", "list_runs", "report_html", "share", "write_report"]
