"""The parts of a bundle, written into a directory that appears whole."""
