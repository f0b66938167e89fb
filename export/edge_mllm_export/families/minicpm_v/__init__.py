"""MiniCPM-V 2.6, 4.0 and 4.5."""
