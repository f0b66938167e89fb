"""Fewer visual tokens between tower and decoder, without training: off unless asked for, and never silent.

The tower's embeddings are kept whole in every cache; what is dropped is decided after them (:mod:`.thinning`), or
before the tower for tiles that show nothing new (:mod:`.tiles`).
"""
