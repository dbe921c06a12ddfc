"""Coverage-guided fuzzing of every decoder: ``make fuzz``."""
