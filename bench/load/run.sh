#!/usr/bin/env bash
# Builds what bench/load needs and runs it in a network namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "the benchmark needs root: it makes a network namespace" >&2; exit 77; }
missing=()
if [ "${1:-}" = instructions ] && ! command -v valgrind >/dev/null; then missing+=(valgrind); fi
for tool in nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client openssl:openssl ip:iproute2; do
  command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
fi
target="${CARGO_TARGET_DIR:-$PWD/target}"
cargo build --quiet --release --manifest-path bench/rust/hyper-proxy/Cargo.toml --target-dir "$target/bench"
if [ -z "${BENCH_PLANE:-}" ]; then make -s bench-plane; fi
export HYPER_PROXY="$target/bench/release/hyper-proxy"
export BENCH_PLANE="${BENCH_PLANE:-$target/x86_64-unknown-linux-gnu/enclave/examples/bench-plane}"
# shellcheck disable=SC2016 # the inner shell expands it
exec unshare --net -- bash -c '
  set -e
  ip link set lo up
  # Another default (BBR paces even loopback) would triple the cost of bulk for everybody.
  for net in 127.0.0.0/8 127.0.0.1; do
    ip route change local "$net" dev lo table local proto kernel scope host src 127.0.0.1 congctl cubic
  done
  module=bench.load
  if [ "${1:-}" = instructions ]; then module=bench.load.instructions; shift; fi
  exec "${PYTHON:-python3}" -m "$module" --hyper-proxy "$HYPER_PROXY" --bench-plane "$BENCH_PLANE" "$@"' bash "$@"
