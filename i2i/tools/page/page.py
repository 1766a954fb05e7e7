"""The page as Gradio draws it. No other file knows Gradio.

Handlers get what the browser sends as it is (`preprocess=False`): Gradio would open the paths in it, and fetch the
addresses. The guard has refused those outside of the folder.
"""

import contextlib
import secrets
import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from i2i.errors import I2IError, ImageError
from i2i.images.formats import SUFFIXES
from i2i.models.info import MAX_SIDE
from i2i.terminal import say_plain
from i2i.tools.page.order import (
    CANVAS,
    KEPT,
    MIX,
    File,
    Files,
    OrderError,
    card,
    head,
    order_of,
    sent,
    table,
    upload_of,
)
from i2i.tools.page.studio import Order, Outcome, Result, Studio

ROUTES = {
    "GET": (
        "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/assets/*", "/static/*", "/styles/*",
        "/gradio_api/theme.css", "/gradio_api/startup-events", "/gradio_api/app_id", "/gradio_api/heartbeat/*",
        "/gradio_api/queue/data", "/gradio_api/upload_progress", "/gradio_api/file=*",
    ),
    "HEAD": ("/",),
    "POST": (
        "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel",
        "/gradio_api/reset",
    ),
}  # fmt: skip
"""Gradio's routes that the page uses. It has others, which fetch addresses or show how often it is used."""
FILES, UPLOADS, JOINS = "/gradio_api/file=", "/gradio_api/upload", "/gradio_api/queue/join"
QUEUE = 64
"""Orders that wait, at most."""
_GENERIC = "Something went wrong. The log of the server says what."
_CSS, *_SCRIPTS = (Path(__file__).with_name(name) for name in ("page.css", "mask.js", "mix.js", "styles.js"))
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # the visitor's own


@dataclass
class Visit:
    """A visitor's open page: what was uploaded, and the results of the last order, in a folder of their own."""

    uploads: set[Path] = field(default_factory=set)
    folder: Path | None = None
    outcome: Outcome = field(default_factory=lambda: Outcome((), (), None))
    stop: Event = field(default_factory=Event)

    def clear(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder, self.outcome = None, Outcome((), (), None)


def build_app(studio: Studio, folder: Path) -> tuple[FastAPI, Callable[[], list[str]]]:
    """The application, which keeps all its files in `folder`; and a function that has the session of each request that
    waits."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    names = list(studio.styles)

    async def thumbnail(number: int) -> Response:
        """A style's version of the example. No content while it is not made: to wait here would keep others waiting."""
        if not 0 <= number < len(names):
            return Response(status_code=404)
        made = studio.examples.get(names[number])
        headers = {"cache-control": "no-store"}  # the next server here may have other styles
        return FileResponse(made[1], headers=headers) if made else Response(status_code=204, headers=headers)

    app.add_api_route("/styles/{number}.jpg", thumbnail)
    page = _Page(studio, folder).blocks
    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)  # none goes around the queue
    page.has_launched = True  # else Gradio checks no path of a mounted page
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in _SCRIPTS)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=studio.bounds.file_bytes,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        theme=_theme(),
        css=_CSS.read_text(encoding="utf-8"),
        head=f"<script>{scripts}\ni2iStyles({len(names)})</script>",
    )

    def waiting() -> list[str]:
        queues = page._queue.event_queue_per_concurrency_id.values()
        return [event.session_hash for queue in queues for event in queue.queue]

    return mounted, waiting


def _theme() -> gr.Theme:
    plain = {"background_fill": "transparent", "text_color": "*body_text_color_subdued", "text_weight": "500"}
    labels = {f"block_{kind}_{name}": value for kind in ("label", "title") for name, value in plain.items()}
    dark = {f"{name}_dark": value for name, value in labels.items() if not name.endswith("weight")}
    return gr.themes.Soft(primary_hue="teal", neutral_hue="slate", radius_size="lg", **_FONTS).set(
        **labels,
        **dark,
        body_text_color_subdued="*neutral_500",
        block_label_shadow="none",
        block_title_padding="0",
        block_label_border_width="0",
        block_border_width="1px",
    )


class _Page:
    """The parts of the page and what they do."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self._studio, self._folder = studio, folder
        self._visits: dict[str, Visit] = {}
        self._names = list(studio.styles)
        with gr.Blocks(title="i2i", analytics_enabled=False, fill_width=True) as self.blocks:
            gr.HTML(head(studio.bounds), elem_id="head")
            with gr.Row(elem_id="columns"):
                with gr.Column(scale=2, min_width=340, elem_id="left"):
                    self._draw_order()
                with gr.Column(scale=3, min_width=340, elem_id="right"):
                    self._draw_results()
            self._connect()

    def _draw_order(self) -> None:
        suffixes = sorted(SUFFIXES)
        with gr.Tabs():
            with gr.Tab("Pictures"):
                self.files = gr.File(
                    file_count="multiple", file_types=suffixes, label="Drop pictures here", elem_id="files", height=150
                )
                self.example = gr.Button("Take the example", size="sm", variant="secondary", elem_id="example")
            with gr.Tab("Folder"):
                self.tree = gr.File(file_count="directory", label="Drop a folder here", elem_id="tree", height=150)
            with gr.Tab("Camera"):
                self.camera = gr.Image(sources=["webcam"], type="filepath", format="png", label="Camera", height=240)
        self.styles = gr.CheckboxGroup(
            self._names, value=self._names[:1], label="Styles: one, or several to compare", elem_id="styles"
        )
        gr.HTML(MIX, elem_id="mix", padding=False)
        self.card = gr.HTML(card(self._studio.styles[self._names[0]]), elem_id="card")
        with gr.Accordion("Options", open=False):
            self.size = gr.Number(
                0, label="Size: pixels of the shorter side; 0: as it is", minimum=0, maximum=MAX_SIDE, precision=0,
                elem_id="size",
            )  # fmt: skip
            self.strength = gr.Slider(
                0, 1, 1, step=0.05, label="Strength: 0 is the picture, 1 the translation", elem_id="strength"
            )
            self.keep = gr.Radio(list(KEPT), value=next(iter(KEPT)), label="Keep from the picture", elem_id="keep")
        with gr.Accordion("Mask: translate a part", open=False, elem_id="mask"):
            gr.HTML(CANVAS)
            self.mask = gr.File(
                file_types=suffixes, label="Or a file: white is translated", elem_id="mask-file", height=150
            )
            self.mix = gr.Textbox(visible="hidden", elem_id="mixed")
            self.drawn = gr.Textbox(visible="hidden", elem_id="drawn")
            self.shown = gr.Textbox(visible="hidden", elem_id="shown")
        with gr.Row():
            self.go = gr.Button("Translate", variant="primary", elem_id="go", scale=3)
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop", scale=1, min_width=80)

    def _draw_results(self) -> None:
        self.slider = gr.ImageSlider(
            label="Before and after", show_label=False, type="filepath", format="png", elem_id="slider", max_height=620,
            interactive=False, buttons=["fullscreen"],
        )  # fmt: skip
        with gr.Row(elem_id="downloads"):
            self.one = gr.DownloadButton("Download this picture", elem_id="one", visible=False)
            self.all = gr.DownloadButton("Download all (zip)", elem_id="zip", visible=False)
        self.gallery = gr.Gallery(
            label="Results", show_label=False, elem_id="gallery", visible=False, allow_preview=False,
            object_fit="contain", height="auto", buttons=[],
        )  # fmt: skip
        self.report = gr.HTML("", elem_id="report")

    def _connect(self) -> None:
        hidden: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
        sources = [self.files, self.tree, self.camera]
        order = [*sources, self.styles, self.size, self.strength, self.keep, self.mask, self.mix, self.drawn]
        shown = [self.slider, self.one, self.all, self.gallery, self.report]
        self.blocks.load(guarded(self._first), None, [self.slider], show_progress="hidden", **hidden)
        self.example.click(guarded(self._take_example), None, [self.files], **hidden)
        self.styles.change(guarded(self._show_card), [self.styles], [self.card], show_progress="hidden", **hidden)
        for source in sources:
            changed = source.change(guarded(self._to_draw_on), sources, [self.shown], show_progress="hidden", **hidden)
            changed.then(None, [self.shown], None, js="(address) => i2iMask.show(address)", **hidden)
        self.go.click(guarded(self._begin), None, None, queue=False, **hidden).then(
            guarded(self._translate),
            order,
            shown,
            # outputs follow the inputs
            js=f"(...values) => [...values.slice(0, {len(order) - 2}), i2iMix.weights(), i2iMask.drawn()]",
            concurrency_id="work",
            trigger_mode="once",
            show_progress_on=[self.slider],
            **hidden,
        )
        self.stop.click(guarded(self._stop), None, None, queue=False, **hidden)
        self.gallery.select(guarded(self._choose), None, [self.slider, self.one], show_progress="hidden", **hidden)
        self.blocks.unload(self._leave)

    def _visit(self, request: gr.Request) -> Visit:
        return self._visits.setdefault(str(request.session_hash), Visit())

    def _first(self) -> tuple[str, str]:
        before, after = self._studio.example(self._names[0], self._folder)
        return str(before), str(after)

    def _take_example(self) -> list[str]:
        return [self._first()[0]]

    def _show_card(self, chosen: Sequence[str]) -> str:
        return "".join(card(self._studio.styles[name]) for name in chosen if name in self._studio.styles)

    def _translate(
        self,
        files: Files,
        tree: Files,
        camera: File | None,
        styles: object,
        size: object,
        strength: object,
        keep: object,
        mask: File | None,
        mix: object,
        drawn: object,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio finds it by its default)
    ) -> tuple[Any, ...]:
        options = {"size": size, "strength": strength, "keep": keep, "mask": mask, "mix": mix, "drawn": drawn}
        order = order_of(sent(files, tree, camera), styles, options, self._names, self._studio.bounds)
        visit = self._visit(request)
        stop = visit.stop
        visit.clear()
        visit.uploads |= {upload.path for upload in order.uploads}
        visit.folder = folder = self._folder / secrets.token_hex(16)
        folder.mkdir()

        def show(done: int, total: int, name: str) -> None:
            progress((done, total), desc=name, unit="pictures")

        try:
            visit.outcome = self._studio.translate(order, folder, show, stop.is_set)
        finally:
            if visit.folder is None:  # the visitor has left since
                shutil.rmtree(folder, ignore_errors=True)
        return _drawn(visit.outcome, order)

    def _to_draw_on(self, files: Files, tree: Files, camera: File | None, request: gr.Request) -> str:
        """The address of the first picture, small, for a mask to be drawn on; empty where there is none."""
        for upload in map(upload_of, sent(files, tree, camera)[:1]):
            place = self._folder / secrets.token_hex(16) / "mask.jpg"
            with contextlib.suppress(ImageError):
                picture = self._studio.preview(upload)
                place.parent.mkdir()
                picture.convert("RGB").save(place)
                self._visit(request).uploads.add(place)
                return f"{FILES}{place}"
        return ""

    def _choose(self, request: gr.Request, event: gr.SelectData) -> tuple[Any, ...]:
        result, _ = _gallery(self._visit(request).outcome)[event.index]
        return (str(result.before), str(result.after)), _download(result.file)

    def _begin(self, request: gr.Request) -> None:
        """An order is on its way, and can be stopped from now on, also while it waits for others."""
        self._visit(request).stop = Event()

    def _stop(self, request: gr.Request) -> None:
        self._visit(request).stop.set()

    def _leave(self, request: gr.Request) -> None:
        """A visitor has closed the page. One file may be the upload of two visitors, as its path is its content."""
        visit = self._visits.pop(str(request.session_hash), Visit())
        visit.stop.set()
        visit.clear()
        others = {path for other in self._visits.values() for path in other.uploads}
        for path in visit.uploads - others:
            if path.parent != self._folder:  # as the example is, which is everybody's
                path.unlink(missing_ok=True)


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler`, whose errors go to the server's log, and not to the visitor. Gradio shows an error as HTML."""

    @wraps(handler)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return handler(*arguments, **named)
        except OrderError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None
        except ImageError as error:  # the mask's; an error of a picture is a line of the report
            raise gr.Error(escape(f"The mask: {error}"), print_exception=False) from None
        except Exception as error:
            lines = [str(error)] if isinstance(error, I2IError) else traceback.format_exception(error)
            for line in "".join(lines).splitlines():
                say_plain(f"page: {line}")
            raise gr.Error(_GENERIC, print_exception=False) from None

    return run


def _gallery(outcome: Outcome) -> list[tuple[Result, bool]]:
    """The pictures of the gallery: each result, and before those of several styles the original of the first."""
    several = len({result.style for result in outcome.results}) > 1
    shown: list[tuple[Result, bool]] = []
    for number, result in enumerate(outcome.results):
        is_first = number == 0 or outcome.results[number - 1].file.parent.name != result.file.parent.name
        shown += [(result, True), (result, False)] if several and is_first else [(result, False)]
    return shown


def _drawn(outcome: Outcome, order: Order) -> tuple[Any, ...]:
    """An outcome as the values of slider, downloads, gallery and report."""
    report = table(outcome.rows)
    if not outcome.results:
        return None, _download(None), _download(None), gr.update(visible=False), report
    shown = []
    for result, is_original in _gallery(outcome):
        version = result.style if result.style in order.styles else "mix"  # its whole name is in the report
        name = result.name if is_original or len(order.versions) == 1 else version
        shown.append((str(result.before if is_original else result.after), name))
    columns = len(order.versions) + 1 if len(order.versions) > 1 else min(4, len(shown))
    first = outcome.results[0]
    return (
        (str(first.before), str(first.after)),
        _download(first.file),
        _download(outcome.archive),
        gr.update(value=shown, visible=len(shown) > 1, columns=columns),
        report,
    )


def _download(path: Path | None) -> Any:
    return gr.update(value=path and str(path), visible=path is not None)
