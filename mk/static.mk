# The static binaries: cloister-enclave (init and data plane, what goes into an EIF) and
# cloister-sandbox (the launcher), and the server of examples/hello-enclave.
#
# They need flags the extension must not have (`crt-static` breaks a shared object, and without
# `--target` it breaks proc macros), so they have a rule of their own. The same commit built in two
# directories gives the same bytes: every absolute path that could end up in them is renamed, for
# Rust and for the C of aws-lc.

STATIC_TARGET := x86_64-unknown-linux-gnu
STATIC_OUT = $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/enclave
STATIC_BIN := $(ROOT)/python/cloister/_bin
STATIC_CARGO_HOME := $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)
STATIC_SYSROOT = $(shell rustc --print sysroot)

# The last matching rule wins in rustc, and the target folder is usually inside the checkout.
STATIC_RUSTFLAGS = -C target-feature=+crt-static \
  --remap-path-prefix=$(ROOT)=/cloister \
  --remap-path-prefix=$(STATIC_CARGO_HOME)=/cargo \
  --remap-path-prefix=$(STATIC_SYSROOT)=/rustc \
  --remap-path-prefix=$(CARGO_TARGET_DIR)=/target
STATIC_CFLAGS = \
  -ffile-prefix-map=$(ROOT)=/cloister \
  -ffile-prefix-map=$(STATIC_CARGO_HOME)=/cargo \
  -ffile-prefix-map=$(CARGO_TARGET_DIR)=/target
STATIC_CARGO = env -u CARGO_ENCODED_RUSTFLAGS RUSTFLAGS="$(STATIC_RUSTFLAGS)" CFLAGS="$(STATIC_CFLAGS)" \
  SOURCE_DATE_EPOCH=0 CARGO_INCREMENTAL=0 \
  cargo build --locked --quiet --profile enclave --target $(STATIC_TARGET)

.PHONY: static hello fixtures

# Installs programs ($1) in a folder ($2). What did not change keeps its time; what did is moved into
# its place whole, so that a test that runs at the same time sees the old or the new one.
define install_programs
mkdir -p $(2)
for program in $(1); do \
  target=$(2)/$$(basename $$program); \
  cmp -s $$program $$target || \
    { install -m 0755 $$program $$target.$$$$ && mv -f $$target.$$$$ $$target; } || exit 1; \
done
endef

# cargo decides what is stale.
static: ## build cloister-enclave and cloister-sandbox into python/cloister/_bin
	$(STATIC_CARGO) -p cloister-init -p cloister-sandbox --bin cloister-enclave --bin cloister-sandbox
	$(call install_programs,$(STATIC_OUT)/cloister-enclave $(STATIC_OUT)/cloister-sandbox,$(STATIC_BIN))

hello: ## build the server of examples/hello-enclave, static
	$(STATIC_CARGO) -p hello-enclave
	$(call install_programs,$(STATIC_OUT)/hello-enclave,$(ROOT)/examples/hello-enclave)

# An init whose data plane is a script, a user process that tries to break out, one that says what it sees
# of a hot update, and one that says how it was started.
fixtures: ## build the programs that tests run inside the sandbox
	$(STATIC_CARGO) -p cloister-init --bin fixture-init --bin fixture-probe --bin fixture-rotation \
	  --bin fixture-witness
	$(call install_programs,$(addprefix $(STATIC_OUT)/,fixture-init fixture-probe fixture-rotation fixture-witness),$(ROOT)/tests/support/_bin)

test-python: fixtures

# The data plane as it is measured: the crates, flags and profile of the enclave's binary.
BENCH_PLANE = $(STATIC_OUT)/examples/bench-plane
.PHONY: bench-plane
bench-plane: ## build the program that bench/load measures
	$(STATIC_CARGO) -p cloister-devplane --example bench-plane
