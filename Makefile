# make demo: the whole pipeline on bundled digits, by five draws (make demo SEEDS=0-9: by ten).
# make paper: the paper's tables and figures on them. make test: the tests. Each makes .venv itself.

PYTHON ?= python3
EXPERIMENT := cnn2_digits3_10pc
METHODS := loo if ats gd_and_gc
SEEDS := 0-4
python := .venv/bin/python
# What is installed is compiled by all cores, which pip would do with one; not the packages' tests,
# and not a file of torch's in the syntax of Python 3.12, where Python is older, hence `true`.
install := $(python) -m pip install --quiet --no-compile
compile := $(python) -m compileall -qq -j 0 -x /tests/ .venv/lib || true

.DELETE_ON_ERROR:
.PHONY: demo demo-pvalues demo-correlations paper test test-all lint bench

.venv/installed: req.txt
	$(PYTHON) -m venv .venv
	$(install) --requirement req.txt
	$(compile)
	touch $@

.venv/installed_for_tests: .venv/installed tests/req.txt
	$(install) --requirement tests/req.txt
	$(compile)
	touch $@

demo: .venv/installed
	$(python) run_subset_generation.py --task digits3
	$(python) run_parallel.py --experiment $(EXPERIMENT) --seed_id $(SEEDS) \
		--methods $(METHODS) subsets --n_subsets 24
	$(MAKE) --no-print-directory --jobs=2 demo-pvalues demo-correlations
	$(python) run_accuracy.py --experiment $(EXPERIMENT) --seed_id $(SEEDS)

demo-pvalues:
	$(python) run_pvalues.py --experiment $(EXPERIMENT) --seed_id $(SEEDS) --test_index 869

demo-correlations:
	$(python) run_correlations.py --experiment $(EXPERIMENT) --seed_id $(SEEDS)

paper: .venv/installed
	$(python) run_subset_generation.py --task digits3
	$(python) run_paper.py --run --scale quick

test: .venv/installed_for_tests lint
	$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# With the tests marked slow.
test-all: .venv/installed_for_tests lint
	$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow or not slow"

lint: .venv/installed_for_tests
	$(python) -m ruff check .
	$(python) -m ruff format --check .

# Installs three other libraries, to compare with. Wants data/mnist3 and data/cifar10.
bench: .venv/installed
	$(python) -m pip install --quiet --requirement benchmarks/req.txt
	$(python) benchmarks/bench.py
