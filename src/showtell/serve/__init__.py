"""The web service: captions over HTTP, from a few hundred megabytes of memory (docs/service.md).

    body -> upload (limits while reading) -> reading (decoding, off the event loop) -> batcher (shared batches) -> records

`app.create_app` is the ASGI application, `server.run` serves it.
"""
