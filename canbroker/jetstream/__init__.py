"""What benches and consumers of NATS JetStream agree on: subjects, headers, streams, connecting.

``docs/design/nats.md`` says why. Importing this does not import nats-py, which is an extra.
"""
