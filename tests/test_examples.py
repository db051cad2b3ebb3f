"""The examples of larger libraries, over stand-ins with the interface that they use: the libraries are no test dependencies."""

import asyncio
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import showtell

EXAMPLES = Path(__file__).parents[1] / "examples"
CAT = EXAMPLES / "photos" / "cat.jpg"


def test_the_page_of_gradio_captions_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    gradio: Any = ModuleType("gradio")
    gradio.Image = gradio.Slider = gradio.Textbox = lambda *_, **__: None
    gradio.Interface = lambda function, inputs, outputs, title: SimpleNamespace(function=function, title=title)
    gradio.Error = type("Error", (Exception,), {})
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    captioner = showtell.load()
    page = runpy.run_path(str(EXAMPLES / "gradio_app.py"))["interface"](captioner)
    assert page.title == captioner.name
    with Image.open(CAT) as picture:
        assert len(page.function(picture, 2.0).splitlines()) == 2
    with pytest.raises(gradio.Error):
        page.function(None, 1)


def test_the_deployment_of_ray_captions_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    serve: Any = ModuleType("ray.serve")

    def deployment(**_: Any) -> Any:
        def decorate(kind: type) -> type:
            kind.bind = classmethod(lambda cls, *given: (cls, given))  # type: ignore[attr-defined]
            return kind

        return decorate

    def batch(**_: Any) -> Any:
        def decorate(method: Any) -> Any:
            async def single(self: Any, item: Any) -> Any:
                return (await method(self, [item]))[0]

            return single

        return decorate

    serve.deployment, serve.batch = deployment, batch
    ray: Any = ModuleType("ray")
    ray.serve = serve
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    kind, given = runpy.run_path(str(EXAMPLES / "ray_serve.py"))["app"]

    async def body() -> bytes:
        return CAT.read_bytes()

    record = asyncio.run(kind(*given)(SimpleNamespace(body=body)))
    assert record["status"] == "ok"
    assert record["caption"] == showtell.load()(CAT).text
