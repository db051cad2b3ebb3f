"""A Ray Serve deployment that captions the photos of all requests in batches.

pip install showtell 'ray[serve]'
serve run examples.ray_serve:app                                  # in this repository
curl --data-binary @photo.jpg http://127.0.0.1:8000/
"""

from typing import Any

from ray import serve
from starlette.requests import Request

from showtell.captioners import open_captioner


@serve.deployment(ray_actor_options={"num_cpus": 1})
class Captions:
    """One captioner a replica; Ray starts more replicas where `autoscaling_config` or `num_replicas` says so."""

    def __init__(self, model: str | None = None) -> None:
        self.captioner = open_captioner(model, threads=1)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def caption(self, photos: list[bytes]) -> list[dict[str, Any]]:
        """A record of each encoded photo, as JSON."""
        return [record.to_json() for record in self.captioner.records(photos)]

    async def __call__(self, request: Request) -> dict[str, Any]:
        """The record of the photo in the request's body."""
        record: dict[str, Any] = await self.caption(await request.body())
        return record


app = Captions.bind()
