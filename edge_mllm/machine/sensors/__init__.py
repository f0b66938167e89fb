"""What a board measures of itself: energy, temperature, throttling."""
