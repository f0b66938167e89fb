"""One answer: pictures and messages in, pieces of text and what they cost out."""
