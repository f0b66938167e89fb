"""One module per tiler: how it plans a picture, and its coarser settings."""
