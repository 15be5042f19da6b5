# Every verb a person or CI needs. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The first Python that is new enough; `make PYTHON=… <verb>` chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# In the order in which they need each other.
MODELS ?= shapes-sd15 shapes-sd2 shapes-sdxl shapes-turbo shapes-sd3 shapes-flux shapes-sdxl-frame shapes-flux-frame shapes-sd15-inpaint shapes-canny shapes-frame shapes-frame-2 shapes-ground shapes-dusk shapes-x2 shapes-x4 shapes-grey
WEB_APP := broker_api/static/app/index.html
WEB_SOURCES := web/index.html web/vite.config.ts web/tsconfig.json $(shell find web/src web/public web/plugins -type f ! -name schema.d.ts)
# Where to take torch from (a CPU, CUDA or ROCm build); empty takes pip's default index. See README, "GPUs".
TORCH_INDEX ?=
# Test processes side by side, each with servers of its own; tiny models gain nothing from a second thread.
JOBS ?= 2

##@ Use it
.PHONY: run
run: $(READY)  ## set up, start everything on this machine, draw one picture, serve until Ctrl-C
	@$(MAKE) --no-print-directory web || echo "The web application could not be built (see above); everything else works without it."
	@$(BIN)/imagefleet up --draw "a red circle on a blue background"

##@ Work on it
.PHONY: setup test check format bench soak verify-models accuracy reference-models clean
setup: $(READY)  ## create .venv with the exact versions of constraints.txt

test: $(READY)  ## run every test on real servers, on free ports of their own
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope $(ARGS)

check: $(READY)  ## formatting, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

format: $(READY)  ## format and mend what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY)  ## measure, as ratios inside one interleaved run; writes benchmarks/results/
	@$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(READY)  ## kill one part after the other under load for half an hour
	@$(BIN)/python -m pytest tests/faults/test_soak.py -m slow -s $(ARGS)

verify-models: $(READY)  ## draw every task with every model at hand, on a fleet of its own, and print a table
	@$(BIN)/imagefleet verify --own $(ARGS)

accuracy: $(READY)  ## measure how often the reference models obey over HTTP; writes docs/accuracy.md; ARGS="shapes-sdxl …" names some of them
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.acceptance.families.measure_accuracy $(ARGS)

reference-models: $(READY)  ## train the reference models again (about four hours on two cores); MODELS="…" names some of them
	@for model in $(MODELS); do $(BIN)/python -m reference_models.train $$model || exit 1; done

##@ The web application
.PHONY: web web-shots wheel
web: $(READY) $(WEB_APP)  ## build the web application; quick when nothing changed

web-shots: web  ## draw docs/screenshots/: every view, light, dark and on a phone
	@$(BIN)/python -m tests.web.shots $(ARGS)

wheel: web  ## build the package with the web application in it, into dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

$(WEB_APP): web/node_modules/.ready web/openapi.json $(WEB_SOURCES)
	@web/with-node.sh npm run --silent build

web/node_modules/.ready: web/package.json web/package-lock.json
	@web/with-node.sh npm ci --no-audit --no-fund
	@touch $@

# The typed client follows from the server's own document; one that says the same is left alone.
web/openapi.json: $(READY) $(shell find broker_api jobs models_registry -name '*.py')
	@$(BIN)/python -m cli.main openapi >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

##@ With a GPU
.PHONY: test-gpu bench-gpu
test-gpu: $(READY)  ## the tests that need a GPU; they skip where there is none
	@$(BIN)/python -m pytest tests/gpu -m gpu $(ARGS)

bench-gpu: $(READY)  ## the measurements that need a GPU
	@$(BIN)/python -m benchmarks.gpu.run $(ARGS)

clean:  ## remove the environment and caches (never .imagefleet)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (on Debian: apt-get install python3 python3-venv)."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "This Python cannot make environments (on Debian: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV) (several minutes the first time) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
