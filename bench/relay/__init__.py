"""Rows 11 to 17: what it costs to move bytes between two sockets, beside other proxies."""
