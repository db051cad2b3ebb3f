"""The web service: captions over HTTP in a few hundred megabytes of memory (docs/service.md).

    body -> upload (limits while reading) -> reading (decoding, off the event loop) -> batcher (shared batches) -> records

`app.create_app` makes the ASGI application, `server.run` serves it.
"""
