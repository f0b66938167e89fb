"""The settings that answer soonest on this machine, searched once and kept."""
