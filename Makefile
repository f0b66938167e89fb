# Two commands do all the set-up: `make demo` and `make test`. The rest is for working on the project.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
MODEL ?=
LLAMA_CPP := build/llama.cpp
# Of 178 files that llama-cpp-python compiles 53 are of llama.cpp's programs, which it does not install.
WITHOUT_TOOLS := -DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/.ci/llama_libraries.cmake

.PHONY: android android-fuzz android-test apk demo test lint fmt golden parity slow starter-bundle starter-verification numbers models-md docs layouts catalogue wheel-check aarch64 arm-counts peers oracle fuzz soak clean

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# llama-cpp-python is compiled from source here (minutes on 2 cores); everything else is a wheel. GCC 11.4 and
# 12.2, for example, miscompile llama.cpp's AMX kernels (gcc.gnu.org/PR114098), so x86-64 builds leave AMX out.
ifeq ($(shell uname -m),x86_64)
NO_AMX := -mno-amx-tile -mno-amx-int8
export CMAKE_ARGS ?= -DCMAKE_C_FLAGS='$(NO_AMX)' -DCMAKE_CXX_FLAGS='$(NO_AMX)' $(WITHOUT_TOOLS)
else
export CMAKE_ARGS ?= $(WITHOUT_TOOLS)
endif

# torchvision has no CPU build on the index and breaks `import transformers` beside a CPU torch, so it lies apart:
# only the tests whose reference processor needs it put it on their path (tests/torchvision_reference.py).
# llama.cpp is compiled while the other wheels are fetched and unpacked.
$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		-w build/wheels llama-cpp-python & compiling=$$!; \
	$(PIP) "torch==2.13.0" && $(PIP) -e ".[export,eval,bench,json,serve]" pytest pytest-xdist hypothesis ruff mypy import-linter peft jsonschema openai ollama schemathesis playwright axe-playwright-python mkdocs-material "mkdocstrings[python]" \
		&& $(PIP) --no-deps --upgrade --target build/torchvision torchvision; \
	installed=$$?; wait $$compiling && exit $$installed
	$(PIP) --find-links build/wheels -e ".[all]"
	$(PIP) -e ".[npu]" || echo "onnxruntime-qnn could not be installed (243 MB, a plug-in beside onnxruntime): the tests of NPUs will be skipped" >&2
	touch $@

# llama.cpp's own converter, out of llama-cpp-python's source package: an independent oracle for the tests.
$(LLAMA_CPP)/convert_hf_to_gguf.py: constraints.txt | $(VENV)/.base
	mkdir -p build/sdist
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: -d build/sdist \
		$$(grep -i '^llama_cpp_python==' constraints.txt)
	rm -rf $(LLAMA_CPP) build/sdist/unpacked && mkdir -p build/sdist/unpacked
	tar -xzf build/sdist/llama_cpp_python-*.tar.gz -C build/sdist/unpacked
	mv build/sdist/unpacked/*/vendor/llama.cpp $(LLAMA_CPP)
	touch $@

oracle: $(LLAMA_CPP)/convert_hf_to_gguf.py

demo: $(VENV)/.base
	$(BIN)/edge-mllm run -i starter/demo/label.png "What does it say?"

test: $(VENV)/.dev oracle lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not parity and not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# ONNX Runtime for phones and for the JVM, by its integrity hash; the tests of android_demo are skipped without it.
android: $(VENV)/.base
	PYTHON=$(BIN)/python android_demo/build/fetch.sh
	android_demo/core/compile.sh

# A signed APK at android_demo/build/edge-mllm-demo.apk; apk.sh names the packages of Debian that it needs.
apk: $(VENV)/.base
	PYTHON=$(BIN)/python android_demo/build/apk.sh

android-test: $(VENV)/.dev android
	$(BIN)/python -m pytest tests/android

parity: $(VENV)/.dev
	$(BIN)/python -m pytest -m parity

# Rockchip's compiler in an environment of its own, for its tests: it needs older packages than ours (1.5 GB).
build/rknn: | $(VENV)/.dev
	$(BIN)/python -m edge_mllm_export.write.npu.toolkit build/rknn || echo "rknn-toolkit2 could not be installed: its tests will be skipped" >&2

slow: $(VENV)/.dev oracle build/rknn
	$(BIN)/python -m pytest -m slow

# Mutated inputs of every kind, and long use by two threads with kill -9 in between; results in benchmarks/results.
FUZZ ?=
fuzz: $(VENV)/.dev
	PYTHONPATH=.:export:quant:tests $(BIN)/python -m fuzz.run $(FUZZ)

android-fuzz: $(VENV)/.dev android
	PYTHONPATH=.:export:quant:tests $(BIN)/python -m android.fuzz_run

soak: $(VENV)/.dev
	PYTHONPATH=.:export:quant:tests $(BIN)/python -m fuzz.soak

golden: $(VENV)/.dev
	$(BIN)/python tests/golden/make_golden.py

starter-bundle: $(VENV)/.dev
	$(BIN)/edge-mllm export starter/checkpoint -o edge_mllm/starter.edge --format both --force

# Measured numbers and tables of options in models.md, README.md and docs/, from the committed results.
starter-verification: $(VENV)/.dev
	$(BIN)/python -m benchmarks.verify_starter

numbers models-md: $(VENV)/.dev
	$(BIN)/python -m benchmarks.pages.numbers

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

layouts: $(VENV)/.dev
	$(BIN)/python benchmarks/published_layouts.py

catalogue: $(VENV)/.dev
	$(BIN)/python -m benchmarks.catalogue

wheel-check: $(VENV)/.dev
	$(BIN)/python tests/wheel_check.py

# Wheels in an emulated aarch64 Debian (debootstrap, qemu-user-static, binfmt-support, g++-aarch64-linux-gnu; root).
aarch64: $(VENV)/.base
	$(BIN)/python tests/aarch64_check.py

# Instructions of both engines, of libmtmd and of llama.cpp in that Debian; COUNTS="--models starter --layers 1".
COUNTS ?=
arm-counts: $(VENV)/.dev
	$(BIN)/python benchmarks/arm_counts.py $(COUNTS)

# Other runtimes side by side on the same weights; SHAPE=smolvlm-256m for another model.
SHAPE ?= smolvlm-500m
PEERS ?=
peers: $(VENV)/.dev
	$(BIN)/python benchmarks/peers/run_all.py --shape $(SHAPE) $(PEERS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
