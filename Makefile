# The commands of the README. `make demo` and `make test` set up everything they need in this folder
# (.venv, target, python/cloister/_bin) and touch nothing outside it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
CARGO_TARGET_DIR ?= $(ROOT)/target
export CARGO_TARGET_DIR
PYTHON3 ?= python3
VENV := $(ROOT)/.venv
PYTHON := $(VENV)/bin/python
RUST_SOURCES := $(shell find $(ROOT)/rust $(ROOT)/Cargo.toml $(ROOT)/Cargo.lock -name '*.rs' -o -name 'Cargo.*')
EXTENSION := $(VENV)/.extension

include mk/static.mk

.PHONY: help demo test test-rust test-python lint wheel bench bench-instructions bench-build bench-attestation bench-crypto conformance tools extension clean

help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## set up, then do the main job once, each step with its time
	@start=$$SECONDS; $(MAKE) --no-print-directory $(EXTENSION) static hello >&2; \
	$(PYTHON) examples/demo.py --set-up-seconds $$((SECONDS - start))

test: test-rust test-python ## set up, then run every test

test-rust: tools
	cargo test --locked --workspace --exclude cloister-native --exclude portable-verifier --all-targets
	cargo test --locked --workspace --exclude cloister-native --doc
	cargo check --locked --quiet --package cloister-attestation --no-default-features
	# By itself: in one build with the others it is given the backend that it is there to do without.
	cargo test --locked --quiet --package portable-verifier

test-python: tools $(EXTENSION) static hello wheel
	$(PYTHON) -m pytest

lint: $(EXTENSION) static ## formatting, lints, types, stubs
	$(VENV)/bin/ruff format --check python tests bench examples fuzz
	cargo fmt --check
	$(VENV)/bin/ruff check python tests bench examples fuzz
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(VENV)/bin/mypy
	$(PYTHON) -m mypy.stubtest cloister._native

wheel: $(VENV)/.dependencies static ## a wheel in dist/ that works anywhere on Linux x86-64
	rm -rf dist
	$(VENV)/bin/maturin build --release --locked --out dist

bench: $(EXTENSION) static ## measure against nginx, HAProxy and plain proxies; results in bench/results
	PYTHON=$(PYTHON) bash bench/load/run.sh
	bash bench/relay/run.sh

bench-instructions: ## count user instructions of a request, beside a plain proxy (valgrind)
	PYTHON=$(PYTHON3) bash bench/load/run.sh instructions

bench-attestation: $(EXTENSION) ## measure the verifier against P-384 alone and against others
	cargo build --locked --quiet --release --package cloister-attestation --example verification_speed
	$(PYTHON) -m bench.python.attestation_speed --rust $(CARGO_TARGET_DIR)/release/examples/verification_speed

bench-build: $(EXTENSION) static ## measure building an image against sha384sum and cp
	$(PYTHON) -m bench.python.build_speed

bench-crypto: $(EXTENSION) ## measure encryption from Python against its primitives and the published SDK
	cargo build --quiet --release --locked --manifest-path bench/rust/crypto-limits/Cargo.toml \
	  --target-dir $(CARGO_TARGET_DIR)/bench
	$(PYTHON) -m bench.python.crypto_speed --limits $(CARGO_TARGET_DIR)/bench/release/crypto-limits

conformance: $(EXTENSION) static hello ## what takes too long for `make test`
	cargo test --locked -p cloister-devplane --test engine -- --ignored
	cargo test --locked --release -p cloister-attestation --test mutations -- --ignored
	cargo build --locked --quiet --release --package cloister-attestation --example verification_speed
	$(PYTHON) -m pytest -m conformance -o addopts="-ra --import-mode=importlib"

# PROGRAM:PACKAGE. Without these a test fails,
NEEDED := curl:curl openssl:openssl newuidmap:uidmap ip:iproute2 unshare:util-linux
# and without these tests skip. The dockerd of the tests is their own, in a network of its own; a
# service that comes with a package is not used. In Debian 12 docker.io has all of Docker.
WANTED := dockerd:docker.io docker:docker.io docker:docker-cli docker:docker-buildx \
  containerd:containerd runc:runc buildah:buildah podman:podman mmdebstrap:mmdebstrap gpg:gpg \
  cpio:cpio zstd:zstd wrk:wrk slowhttptest:slowhttptest testssl:testssl.sh socat:socat haproxy:haproxy \
  nginx:nginx-light pg_ctlcluster:postgresql redis-server:redis-server redis-cli:redis-tools nghttp:nghttp2-client \
  h2load:nghttp2-client nghttpd:nghttp2-server

tools: ## what the tests drive: curl, openssl, container builders, …; installed by root, else named
	@lacking() { for pair; do command -v "$${pair%:*}" >/dev/null || echo "$${pair#*:}"; done | sort -u; }; \
	install() { \
	  local known=(); for package; do \
	    if [ -n "$$(apt-cache madison "$$package")" ]; then known+=("$$package"); fi; done; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove \
	    "$${known[@]}" >/dev/null; }; \
	needed=$$(lacking $(NEEDED)); wanted=$$(lacking $(WANTED)); \
	if [ -n "$$needed$$wanted" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq || true; \
	  for packages in "$$needed" "$$wanted"; do [ -z "$$packages" ] || install $$packages || true; done; \
	  needed=$$(lacking $(NEEDED)); wanted=$$(lacking $(WANTED)); \
	fi; \
	[ -z "$$wanted" ] || echo "tests will skip without:" $$wanted "(Debian: apt-get install)" >&2; \
	[ -z "$$needed" ] || { echo "the tests need:" $$needed "(Debian: apt-get install)" >&2; exit 1; }

extension: $(EXTENSION)

$(VENV)/.dependencies: pyproject.toml
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "maturin>=1.9,<2" "pip>=25.1"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --group dev
	touch $@

$(EXTENSION): $(VENV)/.dependencies $(RUST_SOURCES)
	$(VENV)/bin/maturin develop --quiet --release --locked
	touch $@

clean: ## remove what was built; keeps sources only
	rm -rf $(VENV) $(CARGO_TARGET_DIR) dist python/cloister/_bin python/cloister/*.so
