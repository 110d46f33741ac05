# Each target does its own set-up; a second run finds it done. ARGS passes arguments on:
#     make test ARGS="-k maglev"      make demo ARGS=--json
ARGS ?=
EXAMPLES ?= 1000
WALKED ?= 3000000
MINUTES ?= 10
PACKETS ?= 10000000
SYNS ?= 5000000
REQUESTS ?= 100000
PYTHON_RUNS := .venv/bin/python
# The tests start llb many hundreds of times: its modules are compiled once.
unexport PYTHONDONTWRITEBYTECODE
C_FILES = $(shell git ls-files 'bpf/*.c' 'bpf/*.h' 'bench/*.c' 'tests/*.c' ':!bpf/stub')

.PHONY: help demo test check format bench soak model flood fuzz endurance deb systemd kernels clean

help:
	@echo "make demo    show LLB at work on real traffic (root)"
	@echo "make test    run every test (root), some 20 minutes"
	@echo "             a few of them: make test ARGS=\"-k maglev\"; so with the others"
	@echo "make check   ruff, mypy and clang-format"
	@echo "make soak    change, break and load a balancer at random, MINUTES=10 (root)"
	@echo "make model   send classifier and model WALKED=3000000 packets of each family (root)"
	@echo "make flood   send SYNS=5000000 at busy connections (root)"
	@echo "make fuzz    throw random packets at the classifier, PACKETS=10000000 (root)"
	@echo "make endurance  ask REQUESTS=100000 over restarts and upgrades (root)"
	@echo "make bench   measure, also beside nftables, HAProxy and nginx (root)"
	@echo "make deb     build a package for Debian 12 into dist/"
	@echo "make systemd  run that package under a systemd of its own (root)"
	@echo "make kernels  run tests of the classifier on Debian 12's kernel, 6.1 (root)"
	@echo "make format  format the sources in place"
	@echo "make clean   remove what the targets above made here"

demo:
	@scripts/setup run
	@.venv/bin/llb demo $(ARGS)

# Much of a test's time is spent in waiting for something, so there are two more of them than CPUs.
WORKERS ?= $(shell expr $$(nproc) + 2)
test:
	@scripts/setup dev
	$(PYTHON_RUNS) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check:
	@scripts/setup dev
	$(PYTHON_RUNS) -m ruff check
	$(PYTHON_RUNS) -m ruff format --check
	$(PYTHON_RUNS) -m mypy
	$(if $(C_FILES),clang-format --dry-run -Werror $(C_FILES))

format:
	@scripts/setup dev
	$(PYTHON_RUNS) -m ruff check --fix
	$(PYTHON_RUNS) -m ruff format
	$(if $(C_FILES),clang-format -i $(C_FILES))

# Random changes, faults and traffic for as long as is wanted.
soak:
	@scripts/setup dev
	$(PYTHON_RUNS) -m tests.soak --minutes $(MINUTES) $(ARGS)

# The model beside the classifier, on long walks at random and by hypothesis' short sequences; make
# test runs a short form.
model:
	@scripts/setup dev
	LLB_MODEL_PACKETS=$(WALKED) LLB_MODEL_EXAMPLES=$(EXAMPLES) \
		$(PYTHON_RUNS) -m pytest -s tests/bpf/test_model.py $(ARGS)

# Millions of SYNs from made-up sources; make test sends some ten thousands.
flood:
	@scripts/setup dev
	LLB_FLOOD_SYNS=$(SYNS) $(PYTHON_RUNS) -m pytest -s tests/netns/test_flood.py $(ARGS)

# A hundred thousand requests and some GiB over twenty restarts, reloads and upgrades.
endurance:
	@scripts/setup dev
	LLB_ENDURANCE_REQUESTS=$(REQUESTS) LLB_ENDURANCE_TROUBLES=20 LLB_ENDURANCE_MIB=2048 \
		$(PYTHON_RUNS) -m pytest tests/netns/endurance.py $(ARGS)

deb:
	@scripts/setup dev
	@scripts/deb

# The package under this machine's systemd, booted in namespaces of its own.
systemd:
	@scripts/setup dev
	$(PYTHON_RUNS) -m pytest tests/packaging/systemd.py $(ARGS)

# The classifier on the kernel of Debian's release, as user-mode Linux.
kernels:
	@scripts/setup dev
	@scripts/kernels $(ARGS)

# One random packet after the other, and what may never happen; make test runs a short form.
fuzz:
	@scripts/setup dev
	LLB_FUZZ_PACKETS=$(PACKETS) $(PYTHON_RUNS) -m pytest -s tests/bpf/test_fuzz.py $(ARGS)

bench:
	@scripts/setup dev
	$(PYTHON_RUNS) -m bench $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info llb_providers/*/src/*.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
