"""What this machine can do and what slows it down: facts are gathered once, then judged by pure functions."""
