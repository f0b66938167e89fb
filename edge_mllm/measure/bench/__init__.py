"""Stage-by-stage measurements of an answer, with the machine they were taken on."""
