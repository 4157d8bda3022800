"""What a run's folder tells, as one HTML file that needs no server and no network."""

from videomae_fast.report.page import write_report
from videomae_fast.report.run import RunRecord, read_run

__all__ = ["RunRecord", "read_run", "write_report"]
