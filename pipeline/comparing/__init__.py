"""Groups of runs and what they show: looks, intervals, verdicts. Pure."""
