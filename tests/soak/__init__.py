"""Full traffic with random faults for as long as wanted: ``make soak DURATION=3600``."""
