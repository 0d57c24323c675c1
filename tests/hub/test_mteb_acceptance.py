"""An exported level passes MTEB's own acceptance run."""

import mteb
import numpy as np
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.results import TaskResult
from mteb.results.task_result import TaskError
from sentence_transformers import SentenceTransformer

from hf_matryoshka.hub.export import export_level
from hf_matryoshka.surgery.adaptor_init import create_adaptor


def test_mock_run_on_a_stock_level(tiny_sentence_transformer, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(100, 32)).astype(np.float32)
    adaptor = create_adaptor(vectors, matryoshka_dims=[8, 32], intermediate_size=16)
    export_level(adaptor, "d8", tmp_path / "d8", base_model=tiny_sentence_transformer)
    model = SentenceTransformerEncoderWrapper(SentenceTransformer(str(tmp_path / "d8"), device="cpu"))
    statuses = dict(mteb.mock_run(model).items())
    failed = {name: status.exception for name, status in statuses.items() if isinstance(status, TaskError)}
    assert not failed
    assert sum(isinstance(status, TaskResult) for status in statuses.values()) >= 28
