"""The client for asyncio, against the real service over a model whose answers are known."""

import asyncio
from pathlib import Path

import pytest

from serving import GreyModel, photo, serving
from showtell.client import Client
from showtell.errors import OptionError, ServerError
from showtell.types import Record

TOKEN = "0123456789abcdef-a-secret"


def test_records_come_in_order_with_their_paths_and_errors(tmp_path: Path) -> None:
    paths = []
    for grey in range(6):
        paths.append(tmp_path / f"{grey}.png")
        paths[-1].write_bytes(photo(grey))
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo(9)[:40])

    async def run(url: str) -> tuple[list[Record], Record, dict[str, object]]:
        async with Client(url) as client:
            photos = [*paths, broken, str(tmp_path / "none.png")]
            records = [record async for record in client.records(photos, at_once=3, num_captions=2, no_repeat_words=True)]
            return records, await client.caption(photo(7), attention=True), await client.model()

    with serving() as served:
        records, attended, card = asyncio.run(run(served.url))
        assert card["name"] == served.model.bundle.name
        assert {options.num_captions for _, options in served.model.searched} == {2, 1}
    assert [record.caption for record in records[:6]] == [f"grey {grey}" for grey in range(6)]
    assert [record.path for record in records[:6]] == [str(path) for path in paths]
    assert (len(records[0].captions), records[0].width, records[0].height) == (2, 40, 30)
    assert [record.error_code for record in records[6:]] == ["truncated", "not-found"]
    assert attended.captions[0].tokens == ("grey", "7")
    assert attended.attention is not None
    assert len(attended.attention) == 2
    assert Record.from_json(attended.to_json()) == attended


def test_a_busy_service_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GreyModel()
    asked: list[float] = []

    async def told_to_wait(seconds: float) -> None:  # the service is free again once the client was told to wait
        asked.append(seconds)
        model.going.set()
        await asyncio.sleep(0.01)

    async def run(url: str) -> list[Record]:
        async with Client(url, tries=1000) as client:
            return [record async for record in client.records([photo(1)] * 5, at_once=5)]

    with serving(model, places=1, batch_size=1) as served:
        model.going.clear()
        monkeypatch.setattr("showtell.client.sleep", told_to_wait)
        records = asyncio.run(run(served.url))
    assert [record.caption for record in records] == ["grey 1"] * 5
    assert asked
    assert min(asked) >= 1  # Retry-After


def test_what_the_service_refuses_is_an_error() -> None:
    async def caption(url: str, token: str | None = None, **options: object) -> Record:
        async with Client(url, token=token) as client:
            return await client.caption(photo(3), **options)

    with serving(token=TOKEN) as served:
        assert asyncio.run(caption(served.url, TOKEN)).caption == "grey 3"
        with pytest.raises(ServerError, match="status 401: .*check address and token"):
            asyncio.run(caption(served.url, "another-secret-token"))
        with pytest.raises(OptionError, match="beam_size"):
            asyncio.run(caption(served.url, TOKEN, beam_size=1000))
        url = served.url
    with pytest.raises(ServerError, match="does not answer .*is it running"):
        asyncio.run(caption(url))


def test_requests_end_with_the_loop_over_records(tmp_path: Path) -> None:
    async def first(url: str) -> Record:
        async with Client(url) as client:
            records = client.records([photo(1)] * 50, at_once=4)
            async for record in records:
                await records.aclose()
                return record
        raise AssertionError

    with serving() as served:
        assert asyncio.run(first(served.url)).caption == "grey 1"
        assert sum(served.model.batches) <= 5
