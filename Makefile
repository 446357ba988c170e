# make demo   fresh machine → environment, real data, a trained tiny model, pictures and a table
# make play   what the shipped model draws, writes and imagines; PROMPTS=my.yaml asks something else
# make test   lint, types and tests
# make test-long   the tests that take longest: kills, lost hosts, the paper's sizes
# make data   the tiny real data alone
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

PROMPTS ?= configs/prompts/play.yaml

.PHONY: demo play test test-long data lint

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo,dev,benchmarks]'
	touch $@

data: .venv/ready
	$(BIN)/python -m data_modules.recipes tiny --out data/tiny

demo: data
	@[ ! -e $(DEMO) ] || { old=$(DEMO)-$$(date +%Y%m%d-%H%M%S); mv $(DEMO) $$old; echo "the last demo is kept as $$old"; }
	$(BIN)/lit-mm fit --config configs/tiny.yaml --config configs/demo.yaml
	$(BIN)/lit-mm predict --ckpt_path $(DEMO)/checkpoints/last.ckpt
	@echo
	@$(BIN)/python -m callbacks.pages.results_table $(DEMO)
	@echo "validation before and after:  $(DEMO)/validation.jsonl"
	@echo "pictures and texts:           $(DEMO)/samples/   $(DEMO)/predictions/"
	@echo "curves:                       $(BIN)/tensorboard --logdir runs"

play: .venv/ready
	$(BIN)/lit-mm predict --ckpt_path lit_mm/weights/play --data.prompts $(PROMPTS) --trainer.logger.name played

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint data
	$(PYTEST) -m "not long"

test-long: data
	$(PYTEST) -m long
