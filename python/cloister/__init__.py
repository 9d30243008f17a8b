"""Run applications in AWS Nitro Enclaves, and reach them with proof.

The parts: :mod:`cloister.client` attests before it sends a byte, :mod:`cloister.attest` verifies
documents, :mod:`cloister.crypto` encrypts for an app, :mod:`cloister.build` makes enclave images,
:mod:`cloister.dev` runs the data plane without an enclave. Importing this package imports none of
them.
"""
