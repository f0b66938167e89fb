"""A GGUF file with its mmproj, as llama.cpp's users publish them: opened as they are, through libmtmd."""
