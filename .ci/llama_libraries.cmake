# Read after the project() of llama-cpp-python: only the libraries that it installs are compiled. It asks for
# llama.cpp's "common" (programs' options, chat formats, a web server) with a cache entry; this variable comes before it.
set(LLAMA_BUILD_COMMON OFF)
