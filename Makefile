# Every command of the project. `make` alone lists them.

# One profile, one build directory; keep it outside the checkout with CARGO_TARGET_DIR.
BUILD_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
export CARGO_TARGET_DIR := $(BUILD_DIR)
RAFTMQ := $(BUILD_DIR)/release/raftmq
TOOLS := $(or $(RAFTMQ_TOOLS_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/raftmq/tools)

# RocksDB's C++ takes a quarter of an hour: with ccache it is compiled once, whatever the build directory.
ifneq ($(shell command -v ccache 2>/dev/null),)
ifeq ($(origin CC),default)
export CC := ccache cc
endif
ifeq ($(origin CXX),default)
export CXX := ccache c++
endif
endif

# What runs in the simulator, the libraries, is linted as the simulator compiles it, in a build directory of its own.
SIM_RUSTFLAGS := --cfg madsim --cfg tokio_unstable
SIM_FOLDERS := model proto host store raft gateway broker nameserver client sim
SIM := RUSTFLAGS="$(SIM_RUSTFLAGS)" cargo run --release --quiet --target-dir $(BUILD_DIR)/madsim -p raftmq-sim --
SIM_MANIFESTS := $(wildcard $(SIM_FOLDERS:%=%/Cargo.toml))
SIM_PACKAGES := $(foreach manifest,$(SIM_MANIFESTS),-p $(shell sed -n 's/^name = "\(.*\)"/\1/p' $(manifest) | head -n 1))

# FILE for `make demo`: the first of these with a few thousand lines.
DEMO_FILES := /var/log/dpkg.log /usr/share/common-licenses/GPL-3 $(CURDIR)/Cargo.lock
FILE ?= $(shell for file in $(DEMO_FILES); do \
	lines=$$(wc -l < $$file 2>/dev/null || echo 0); \
	if [ "$$lines" -ge 2000 ]; then echo $$file; break; fi; done)

.DEFAULT_GOAL := help
.PHONY: help build up test demo bench interop deploy-test fuzz sim sim-unit sim-determinism sim-minimize sim-mutants lint \
	lint-code lint-mutants lint-sim lint-sdk lint-dependencies fmt doc packages

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

packages:
	@scripts/system-packages build

build: packages
	cargo build --release -p raftmq --bin raftmq

up: build ## Build, then run a name server and three brokers under ./data; Ctrl-C stops them
	@exec $(RAFTMQ) dev $(ARGS)

test: packages ## Every test, from unit tests to three real processes, and worlds in the simulator
	cargo test --release --workspace $(ARGS)
	@$(MAKE) --no-print-directory sim-unit sim $(if $(filter file,$(origin SEEDS)),SEEDS=$(TEST_SEEDS))

demo: build ## Kill the leader while FILE=… is sent line by line; count what was lost
	@$(RAFTMQ) demo --file "$(FILE)" $(ARGS)

bench: build ## Measure a group of three processes, and the ceiling beside it (ARGS=--quick for less)
	@$(RAFTMQ) bench $(ARGS)

interop: build ## The official Python and Node.js clients against a running group
	@scripts/system-packages interop
	python3 interop/wire_compat.py --self-test
	python3 interop/run.py --raftmq $(RAFTMQ) $(ARGS)

deploy-test: build ## The guide's own commands on machines made of network namespaces (as root; its last line says passed, failed or skipped)
	@scripts/system-packages deploy
	deploy/test/run --raftmq $(RAFTMQ) $(ARGS)

fuzz: ## Any bytes into every decoder, 20 s each (one of them, for longer: TARGET=record SECONDS=60)
	@CARGO_TARGET_DIR=$(BUILD_DIR)/fuzz RUSTFLAGS="$(SIM_RUSTFLAGS)" fuzz/run "$(or $(SECONDS),20)" $(TARGET)

# How many seeds of every scenario: of `make sim`, half an hour on two cores, and everything that can happen must; of `make
# test`, as many as there is time for.
SEEDS ?= 24
TEST_SEEDS := 5

sim: packages ## Simulated worlds in which everything goes wrong: SEEDS=24 FIRST=1 [SCENARIO=…], or one: SEED=42 SCENARIO=chaos
	@$(SIM) $(if $(CASE),--case $(CASE),$(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --first $(or $(FIRST),1))) \
		$(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

sim-unit: packages ## The simulator's checkers on histories made by hand: each must hold, and each must be able to fail
	RUSTFLAGS="$(SIM_RUSTFLAGS)" cargo test --release --quiet --target-dir $(BUILD_DIR)/madsim -p raftmq-sim --lib

sim-determinism: packages ## Simulate each world twice: the same seed must be the same run, event for event (SEEDS=2 FIRST=1)
	@$(SIM) --twice $(if $(SEED),--seed $(SEED),--seeds $(if $(filter file,$(origin SEEDS)),2,$(SEEDS)) --first $(or $(FIRST),1)) \
		$(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

sim-minimize: packages ## Shrink a world that fails to a case in sim/regressions: SEED=42 SCENARIO=chaos
	@$(SIM) minimize --seed $(SEED) --scenario $(SCENARIO) $(ARGS)

# Known bugs are patches: they are built in a copy of the sources, and no other build has them.
sim-mutants: packages ## Put known bugs back, one at a time: the simulator must catch each (ARGS="--mutant sync-skipped")
	@scripts/system-packages patches
	@sim/mutants/tree $(BUILD_DIR)
	RUSTFLAGS="$(SIM_RUSTFLAGS)" cargo run --release --quiet --manifest-path $(BUILD_DIR)/mutants-tree/Cargo.toml \
		--target-dir $(BUILD_DIR)/madsim-mutants -p raftmq-sim -- mutants $(ARGS)

lint: lint-code lint-mutants lint-sim lint-sdk lint-dependencies ## Formatting, clippy for both builds, known bugs, dependencies; changes nothing

lint-code: packages
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

# Compiles nothing: whether each known bug can still be put into the code as it is.
lint-mutants:
	@scripts/system-packages patches
	@sim/mutants/tree --check

lint-sim: packages
	RUSTFLAGS="$(SIM_RUSTFLAGS)" cargo clippy --release --target-dir $(BUILD_DIR)/madsim \
		$(SIM_PACKAGES) --lib -- -D warnings
	RUSTFLAGS="$(SIM_RUSTFLAGS)" cargo clippy --release --target-dir $(BUILD_DIR)/madsim \
		-p raftmq-sim --bins -- -D warnings

# The SDK as its users get it: nothing in C without TLS, never what brokers store with or listen with, nothing of the
# simulator; and it can be packaged, with the crates that it rests on, and compiled from the packages.
SDK_PACKAGES := -p raftmq-model -p raftmq-proto -p raftmq-host -p raftmq-client

lint-sdk: packages
	cargo clippy --release -p raftmq-client --no-default-features -- -D warnings
	@tree=$$(cargo tree -p raftmq-client --no-default-features -e normal,build --prefix none) \
		&& ! echo "$$tree" | grep -E '^(cc|cmake|bindgen) '
	@tree=$$(cargo tree -p raftmq-client -e normal,build --prefix none) \
		&& ! echo "$$tree" | grep -E '^(rocksdb|openraft|madsim|madsim-tokio|madsim-tonic|axum) '
	cargo package --quiet --allow-dirty $(SDK_PACKAGES)

lint-dependencies: $(TOOLS)/bin/cargo-deny
	$(TOOLS)/bin/cargo-deny --all-features check bans licenses sources

$(TOOLS)/bin/cargo-deny:
	@echo "cargo-deny is missing: it checks licences and origins of the dependencies; installing it in $(TOOLS)"
	cargo install cargo-deny --locked --root $(TOOLS) --target-dir $(TOOLS)/target
	@rm -rf $(TOOLS)/target

fmt: ## Rewrite the code in its one format
	cargo fmt --all

doc: packages ## Build the documentation of every crate
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --exclude raftmq-sim --no-deps
	RUSTFLAGS="$(SIM_RUSTFLAGS)" RUSTDOCFLAGS="$(SIM_RUSTFLAGS) -D warnings" \
		cargo doc --release --target-dir $(BUILD_DIR)/madsim -p raftmq-sim --no-deps
