# One environment (.venv) for everything; needs Python >= 3.11 and, the first time, the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast test-arithmetic test-slow test-gpu test-page check format docs site clean

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[test,dev]"
	@touch $(READY)

demo: $(READY)
	@$(BIN)/python scripts/demo.py

# Each of two processes takes a half of the tests in their order, so that what a file prepares is prepared once; who is
# done first takes from the other.
TEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(READY)
	$(TEST)

# but what trains, starts processes or plays a server
LONG := training browser evaluation tools commands/test_installation* commands/test_train* commands/test_datasets* \
	commands/test_translate* data/test_pair* folders/test_promises_* folders/test_batch* folders/test_many* \
	folders/test_million* folders/test_parts* folders/test_clusters* folders/test_staging* folders/test_stores* \
	folders/test_alone* films/test_video* inference/test_loaded_model* inference/test_bundled* inference/test_sample* \
	inference/test_transform* inference/test_forks* models/test_styles* models/test_published* \
	models/test_hostile* images/test_hostile* images/test_limits* algorithms/test_learning* algorithms/test_gan* \
	algorithms/test_cut* algorithms/test_contract* algorithms/test_newcomer* \
	algorithms/test_distill* test_benchmarks* test_proportions* test_download* test_cli* test_platforms* test_silence* \
	test_signals* test_bad_paths*

test-fast: $(READY)
	$(TEST) $(LONG:%=--ignore-glob='tests/%')

# The instruction sets that torch, oneDNN (OpenVINO's too, whose instance norm needs AVX) and MKL are held to, the last one
# the machine's own, each with 1 and 2 threads; those of one thread side by side. A header says what torch makes of it.
test-arithmetic: $(READY)
	@for set in "default AVX SSE4_2" "avx2 AVX2 AVX2" ""; do for threads in 1 2; do \
		set -- $$set; \
		env $${1:+ATEN_CPU_CAPABILITY=$$1 ONEDNN_MAX_CPU_ISA=$$2 MKL_ENABLE_INSTRUCTIONS=$$3} OMP_NUM_THREADS=$$threads \
			$(BIN)/python -m pytest -m "arithmetic and not slow" -n $$((4 - 2 * threads)) || exit 1; \
	done; done

test-slow: $(READY)
	$(TEST) -m slow --timeout 3600

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu --timeout 3600

# Gradio needs a Pillow below 13. So its environment is a second one, which also sees the packages of the first.
PAGE := $(VENV)-page

$(PAGE)/.ready: $(READY)
	$(PYTHON) -m venv $(PAGE)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > \
		$$($(PAGE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth
	$(PAGE)/bin/python -m pip install --quiet -e ".[web]"
	@touch $@

test-page: $(PAGE)/.ready
	$(PAGE)/bin/python -m pytest tests/tools/page tests/commands/test_serve.py tests/browser/test_serve.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Sphinx is installed the first time. Links, anchors and docstrings that lead nowhere are errors.
$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going $(TAGS) -c docs . build/docs
	@echo build/docs/index.html

# The documents with a page of the bundled styles that works in the visitor's browser; needs npm.
site: TAGS = -t site -E
site: docs
	cd tests/browser && npm install --silent --no-package-lock
	$(BIN)/python -m i2i export monet vangogh cezanne ukiyoe monet-lite vangogh-lite cezanne-lite ukiyoe-lite --web build/docs/try --web-runtime tests/browser --overwrite

clean:
	rm -rf $(VENV) $(PAGE) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
