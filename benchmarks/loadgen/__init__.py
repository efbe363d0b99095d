"""An open-loop HTTPS load generator that counts what a real client would have lost.

Requests leave by the clock, however slow the server is: scheduled = sent. Each of them ends as answered or as lost,
and the tally can be held against the server's own access log.
"""

from benchmarks.loadgen.plan import Plan
from benchmarks.loadgen.process import Load, LoadError
from benchmarks.loadgen.result import Outcome, summarize

__all__ = ["Load", "LoadError", "Outcome", "Plan", "summarize"]
