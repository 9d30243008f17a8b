#!/usr/bin/env bash
# Builds what bench/relay needs and runs it in a network namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "the benchmark needs root: it makes a network namespace" >&2; exit 77; }
missing=()
for tool in nginx:nginx-light haproxy:haproxy ip:iproute2; do
  command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
# In Debian the stream module is a package of its own.
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(libnginx-mod-stream)
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
fi
target="${CARGO_TARGET_DIR:-$PWD/target}"
cargo build --quiet --release --locked --manifest-path bench/rust/relay-load/Cargo.toml --target-dir "$target/bench"
export RELAY_LOAD="$target/bench/release/relay-load"
# shellcheck disable=SC2016 # the inner shell expands it
exec unshare --net -- bash -c '
  set -e
  ip link set lo up
  # Another default (BBR paces even loopback) would triple the cost of bulk for everybody.
  for net in 127.0.0.0/8 127.0.0.1; do
    ip route change local "$net" dev lo table local proto kernel scope host src 127.0.0.1 congctl cubic
  done
  # Thousands of connections a second, both sides of the proxy.
  echo "10000 65000" >/proc/sys/net/ipv4/ip_local_port_range
  exec "${PYTHON:-.venv/bin/python}" -m bench.relay --relay-load "$RELAY_LOAD" "$@"' bash "$@"
