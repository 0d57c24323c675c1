"""Search a corpus at every level of a Matryoshka embedding model, and see what each level costs.

`space.json` names the model and its levels, `corpus.jsonl` holds the texts, `embeddings.safetensors` their vectors.
"""

import html
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer


ROOT = Path(__file__).resolve().parent
SPACE = json.loads((ROOT / "space.json").read_text(encoding="utf-8"))
LEVELS = SPACE["levels"]
LARGEST = len(LEVELS) - 1
# Every width that some level has; a second slider chooses among them where a level has several.
WIDTHS = sorted({dim for level in LEVELS for dim in level["dims"]})
RESULTS = 10
SHOWN_CHARACTERS = 400
# The sliders count places; what they mean is written above and below them.
CSS = """
.places .tab-like-container, .places .min_value, .places .max_value {display: none}
.names {display: flex; justify-content: space-between; font-size: .85em}
#costs table {width: 100%; font-size: .9em}
#costs th, #costs td {padding: .3em .5em}
#results th {font-family: system-ui, sans-serif}
"""
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


class Found(NamedTuple):
    """What a search gave: places of texts (the best first), their scores, and milliseconds of its two parts."""

    places: list[int]
    scores: list[float]
    encode_ms: float
    search_ms: float


def load_model() -> SentenceTransformer:
    """The model, from the folder beside this file or from the Hub."""
    model = SPACE["model"]
    where = {"local_files_only": True} if model["revision"] is None else {"revision": model["revision"]}
    name = str(ROOT / model["name"]) if model["revision"] is None else model["name"]
    return SentenceTransformer(name, trust_remote_code=model["trust_remote_code"], **where).eval()


def load_texts() -> list[str]:
    """The corpus."""
    with open(ROOT / "corpus.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


MODEL = load_model()
TEXTS = load_texts()
VECTORS = load_file(ROOT / "embeddings.safetensors")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Float32 vectors of length 1."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


@lru_cache(maxsize=8)
def index(level: int, dim: int) -> np.ndarray:
    """The vectors that are searched, of shape `(texts, dim)`: the beginnings of the stored ones."""
    return unit(VECTORS[LEVELS[level]["vectors"]][:, :dim])


def width(level: int, place: int) -> int:
    """The width of a level that is nearest below the chosen one."""
    dims = LEVELS[level]["dims"]
    return max([dim for dim in dims if dim <= WIDTHS[place]], default=dims[0]) if len(dims) > 1 else dims[0]


def search(query: str, level: int, dim: int) -> Found:
    """The best texts for a query at one level and width."""
    vectors = index(level, dim)
    options = dict(LEVELS[level]["encode"])
    if SPACE["model"]["chooses_dim"]:
        options["matryoshka_dim"] = dim
    start = time.perf_counter()
    vector = unit(MODEL.encode_query(query, show_progress_bar=False, **options)[:dim])
    encoded = time.perf_counter()
    scores = vectors @ vector
    best = np.argpartition(-scores, min(RESULTS, len(scores)) - 1)[:RESULTS]
    best = best[np.argsort(-scores[best], kind="stable")]
    found = time.perf_counter()
    return Found(best.tolist(), scores[best].tolist(), 1000 * (encoded - start), 1000 * (found - encoded))


@lru_cache(maxsize=64)
def reference(query: str) -> Found:
    """The same at the largest level and its full width, which the others are compared with."""
    return search(query, LARGEST, LEVELS[LARGEST]["dims"][-1])


def size(count: float) -> str:
    """Bytes as people read them."""
    if count < 1000:
        return f"{count:,.0f} B"
    for name in ("KB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:,.1f} {name}"
    return f"{count / 1000:,.1f} GB"


def costs(level: int, dim: int, found: Found | None, best: Found | None) -> str:
    """A table of what the chosen level and the largest one cost and are worth."""
    chosen, largest = LEVELS[level], LEVELS[LARGEST]
    columns = [(chosen, dim, found), (largest, largest["dims"][-1], best)]
    rows = [
        ("dimensions", [str(wide) for _, wide, _ in columns]),
        ("bytes a vector", [f"{4 * wide:,}" for _, wide, _ in columns]),
        (f"index of {len(TEXTS):,} vectors", [size(4 * wide * len(TEXTS)) for _, wide, _ in columns]),
    ]
    for name in SPACE["costs"]:
        rows.append((name, [f"{entry['costs'][name]:,.0f}" for entry, _, _ in columns]))
    for name in SPACE["scores"]:
        # Levels are measured at their full width.
        cells = [entry["scores"].get(name, "–") if wide == entry["dims"][-1] else "–" for entry, wide, _ in columns]
        rows.append((name, cells))
    if found is not None:
        rows.append(("encoding the query", [f"{one.encode_ms:.1f} ms" for _, _, one in columns]))
        rows.append(("search", [f"{one.search_ms:.2f} ms" for _, _, one in columns]))
        same = len(set(found.places) & set(best.places))
        rows.append(("same texts found", [f"{same} of {len(best.places)}", ""]))
    head = f"| | {chosen['name']} | {largest['name']}, the largest |\n|---|---|---|\n"
    return head + "\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)


def names(words: list[str], place: int) -> str:
    """What the places of a slider mean, the chosen one in bold."""
    tags = ["b" if number == place else "span" for number in range(len(words))]
    spans = [f"<{tag}>{html.escape(word)}</{tag}>" for tag, word in zip(tags, words, strict=True)]
    return f'<div class="names">{"".join(spans)}</div>'


def show(query: str, level: int, place: int) -> tuple:
    """Everything below the query, at a level and a width."""
    level, place = int(level), int(place)
    dim, query = width(level, place), (query or "").strip()
    found = best = None
    rows = []
    if query:
        best = reference(query)
        found = search(query, level, dim)
        ranks = {text: rank for rank, text in enumerate(best.places, start=1)}
        for rank, (text, score) in enumerate(zip(found.places, found.scores, strict=True), start=1):
            shown = TEXTS[text][:SHOWN_CHARACTERS] + ("…" if len(TEXTS[text]) > SHOWN_CHARACTERS else "")
            rows.append([rank, f"{score:.3f}", shown, str(ranks.get(text, "–"))])
    return (
        gr.update(label=f"Level: {LEVELS[level]['name']}"),
        names([entry["name"] for entry in LEVELS], level),
        gr.update(label=f"Width: {dim} dimensions"),
        names([str(dim) for dim in WIDTHS], place),
        rows,
        costs(level, dim, found, best),
    )


def build() -> gr.Blocks:
    """The page."""
    levels, widths = LARGEST > 0, any(len(level["dims"]) > 1 for level in LEVELS)
    last = len(WIDTHS) - 1
    look = {"step": 1, "elem_classes": "places", "buttons": []}
    with gr.Blocks(title=SPACE["title"], analytics_enabled=False) as demo:
        gr.Markdown(f"# {SPACE['title']}\n\n{SPACE['about']}")
        query = gr.Textbox(SPACE["examples"][0] if SPACE["examples"] else "", label="Query", elem_id="query")
        if SPACE["examples"]:
            gr.Examples(SPACE["examples"], query)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                level = gr.Slider(0, LARGEST, LARGEST, label="Level", elem_id="level", visible=levels, **look)
                level_names = gr.HTML(visible=levels)
                place = gr.Slider(0, last, last, label="Width", elem_id="width", visible=widths, **look)
                width_names = gr.HTML(visible=widths)
                table = gr.Markdown(elem_id="costs")
            with gr.Column(scale=3, min_width=320):
                results = gr.Dataframe(
                    headers=["rank", "score", "text", f"at {LEVELS[LARGEST]['name']}"],
                    column_widths=["10%", "12%", "63%", "15%"],
                    datatype="str",
                    wrap=True,
                    interactive=False,
                    max_height=700,
                    elem_id="results",
                )
        outputs = [level, level_names, place, width_names, results, table]
        # What is typed or dragged meanwhile waits, and only the last of it is computed.
        gr.on(
            [demo.load, query.change, level.change, place.change],
            show,
            [query, level, place],
            outputs,
            trigger_mode="always_last",
            show_progress="hidden",
            api_name="search",
        )
    return demo


demo = build()

if __name__ == "__main__":
    # Encoders are slow the first time.
    for number, entry in enumerate(LEVELS):
        search("warm up", number, entry["dims"][-1])
    # A visitor's session holds nothing that is needed again, and Gradio keeps 10,000 of them.
    demo.launch(css=CSS, theme=gr.themes.Default(**FONTS), state_session_capacity=200)
