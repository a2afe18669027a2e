"""How good, how fast, against whom: scores, peers, reports, benchmarks.

A module imports only modules before it:

    inception, judge, datasets, synthetic, scoring, contenders, peers, journal, evaluate,
    intervals, report, promises, studies, machine, workload, folder, benchmark, fullsize,
    ancestor, turns
"""
