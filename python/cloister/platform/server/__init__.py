"""The owner's server: HTTPS in front of a store, a process of its own (``cloister platform``).

:func:`~cloister.platform.server.app.make_app` makes the application, and
:func:`~cloister.platform.server.serve.serve` runs it. What it is asked is decided and done by
:mod:`cloister.platform.embedded` (hosts) and :mod:`cloister.platform.owner` (owners); here is who
may ask, how much, and in which form.

FastAPI is an extra (``cloister[platform]``); nothing outside this folder imports it.
"""
