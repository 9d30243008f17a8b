#!/usr/bin/env bash
# Sets up what bench/load/rows.py needs and runs it in a network namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "the benchmark needs root: it makes a network namespace" >&2; exit 77; }
missing=()
for tool in nginx wrk openssl ip; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light wrk openssl iproute2
fi
target="${CARGO_TARGET_DIR:-$PWD/target}"
cargo build --quiet --release --manifest-path bench/rust/hyper-proxy/Cargo.toml --target-dir "$target/bench"
exec unshare --net -- bash -c '
  set -e
  ip link set lo up
  # Another default (BBR paces even loopback) would triple the cost of bulk for everybody.
  for net in 127.0.0.0/8 127.0.0.1; do
    ip route change local "$net" dev lo table local proto kernel scope host src 127.0.0.1 congctl cubic
  done
  exec .venv/bin/python bench/load/rows.py --hyper-proxy "$0" "$@"' "$target/bench/release/hyper-proxy" "$@"
