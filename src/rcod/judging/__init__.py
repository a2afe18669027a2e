"""How good, how fast, against whom: scores, peers, reports, benchmarks."""
