"""Programs over a session: benchmark, evaluation, search for settings, diagnosis."""
