//! PROXY protocol v2 headers.
