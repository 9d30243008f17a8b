"""The TLS and HTTP rows of the benchmarks: this data plane beside nginx, HAProxy and a hyper proxy."""
