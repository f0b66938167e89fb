"""The vision tower: its float graph to fewer bits, with what pictures show."""
