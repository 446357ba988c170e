PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/pip --quiet --quiet  # errors alone
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
SCHEMA := $(BIN)/check-jsonschema --builtin-schema

PROMPTS ?= configs/prompts/lab.yaml

.DEFAULT_GOAL := help
.PHONY: help environment data lab-data demo play ask test test-long lint docs wheel

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

environment: .venv/ready ## a Python environment in .venv; PYTHON=python3.12 chooses the interpreter

.venv/ready: pyproject.toml constraints.txt
	@echo "installing lit-mm and all it needs into .venv: some minutes, 7 GB"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --upgrade pip
	@$(PIP) install --constraint constraints.txt --editable '.[demo,dev,docs,benchmarks]'
	@touch $@

data: .venv/ready ## the tiny real data, 93 MB in data/tiny
	$(BIN)/python -m data_modules.recipes tiny --out data/tiny

lab-data: .venv/ready ## the laboratory's small world, 250 MB in data/crafter
	$(BIN)/python -m data_modules.recipes crafter --out data/crafter

demo: lab-data ## from nothing to a small model that draws, describes, answers and walks, judged, in runs/demo
	@[ ! -e $(DEMO) ] || { old=$(DEMO)-$$(date +%Y%m%d-%H%M%S); mv $(DEMO) $$old; echo "the last demo is kept as $$old"; }
	$(BIN)/lit-mm fit --config configs/lab.yaml --config configs/demo.yaml
	$(BIN)/lit-mm predict --ckpt_path $(DEMO)/checkpoints/last.ckpt --data.prompts configs/prompts/lab.yaml \
		--trainer.logger.name "" --trainer.logger.version demo
	@echo
	@$(BIN)/python -m callbacks.pages.demo_page $(DEMO)
	@echo "curves:             $(BIN)/tensorboard --logdir runs"

play: .venv/ready ## walk in what the shipped model imagines, and let it draw and describe, in a browser
	$(BIN)/python -m lit_mm.play lab

ask: .venv/ready ## what the shipped model draws, says and imagines, as files; PROMPTS=my.yaml asks something else
	$(BIN)/lit-mm predict --ckpt_path lab --data.prompts $(PROMPTS) --trainer.logger.name played

lint: .venv/ready ## style, types, and schemas of the files that GitHub reads
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	@$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(SCHEMA) vendor.citation-file-format CITATION.cff

test: lint data ## lint, and all tests but the longest
	$(PYTEST) -m "not long"

test-long: data lab-data ## the tests that take longest: kills, lost hosts, the paper's sizes
	$(PYTEST) -m long

docs: .venv/ready ## the documentation, with API pages from docstrings, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: .venv/ready ## dist/lit_mm-….whl: program, configs and small weights
	$(PIP) wheel --no-deps --wheel-dir dist .
