"""What does the service tell a monitor? Counts and times in Prometheus' text format.

every answer -> count(route, status, seconds) -> text() -> GET /metrics
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds


class Meters:
    """The counts of one process."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, int]] = Counter()
        self._slower: Counter[tuple[str, float]] = Counter()  # answers by bucket, not cumulative
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "rcod_memory_bytes": ("Resident memory of the process.", resident)
        }
        self._lock = threading.Lock()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Note one answer.

        Args:
            route: from a fixed set, never a client's own text.
            status: HTTP status.
            seconds: from the request's arrival to the answer's end.
        """
        with self._lock:
            self._answers[route, status] += 1
            if status < 400:
                place = next((bucket for bucket in BUCKETS if seconds <= bucket), float("inf"))
                self._slower[route, place] += 1
                self._seconds[route] += seconds

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a value that is read whenever a monitor asks."""
        self._gauges[name] = meaning, read

    def text(self) -> str:
        """Everything, in Prometheus' text format."""
        with self._lock:
            lines = [
                "# HELP rcod_requests_total Answers by route and status.",
                "# TYPE rcod_requests_total counter",
            ]
            for (route, status), number in sorted(self._answers.items()):
                lines.append(f'rcod_requests_total{{route="{route}",status="{status}"}} {number}')
            lines += [
                "# HELP rcod_request_seconds Seconds from arrival to answer, successes only.",
                "# TYPE rcod_request_seconds histogram",
            ]
            for route in sorted(self._seconds):
                lines += self._histogram(route)
        for name, (meaning, read) in self._gauges.items():
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name} {read():g}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str) -> list[str]:
        lines: list[str] = []
        total = 0
        for bucket in (*BUCKETS, float("inf")):
            total += self._slower[route, bucket]
            edge = "+Inf" if bucket == float("inf") else f"{bucket:g}"
            lines.append(f'rcod_request_seconds_bucket{{route="{route}",le="{edge}"}} {total}')
        lines.append(f'rcod_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
        lines.append(f'rcod_request_seconds_count{{route="{route}"}} {total}')
        return lines


def resident() -> float:
    """Resident memory of this process now, bytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
    return float(line.split()[1]) * 1024
