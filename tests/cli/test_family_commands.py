"""`push`, `family show` and `select` on an exported family."""

import json

import pytest
import torch
from huggingface_hub import HfApi

from hf_matryoshka import CardDetails, MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel, export_family
from hf_matryoshka.evaluation.curve import Curve, LevelPoint


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    torch.manual_seed(0)
    model = MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(embedding_dim=16, matryoshka_dims=[4, 16])).eval()
    points = [LevelPoint("d4", 4, 0.5, 0.4, 0.6), LevelPoint("d16", 16, 0.52, 0.42, 0.62)]
    folder = tmp_path_factory.mktemp("family")
    export_family(model, folder, card=CardDetails(curves=[Curve(points, "ndcg_at_10", "test", "ours")]))
    return folder


def test_push(command, hub, family):
    status, output, _ = command("push", family, "me/demo", "--dry-run")
    assert status == 0 and "me/demo-d4: would get" in output and not list(HfApi().list_models(author="me"))
    status, output, _ = command("push", family, "me/demo", "--private", "--json")
    found = json.loads(output)
    assert status == 0 and [repo["repo_id"] for repo in found["repos"]] == ["me/demo-d4", "me/demo-d16", "me/demo"]
    assert all(repo["commit"] for repo in found["repos"]) and found["collection"].startswith("me/demo")
    assert HfApi().repo_info("me/demo").private
    status, output, _ = command("push", family, "me/demo")
    assert status == 0 and output.count("up to date") == 3 and "Collection: me/demo" in output


def test_show_reads_folders_and_ids(command, hub, family):
    status, output, _ = command("family", "show", family, "--verify")
    lines = output.splitlines()
    assert status == 0 and lines[0].split()[:2] == ["level", "bytes"]
    assert lines[2].split()[:2] == ["d4", "16"] and "0.500 [0.400, 0.600]" in lines[2] and "remote code" in lines[2]
    assert f"All levels: {family}/full" in output
    command("push", family, "me/demo")
    status, output, _ = command("family", "show", "me/demo-d4")
    assert status == 0 and "All levels: me/demo" in output and "0.520 [0.420, 0.620]" in output
    status, output, _ = command("family", "show", "me/demo", "--json")
    assert [level["name"] for level in json.loads(output)["levels"]] == ["d4", "d16"]


def test_select_reads_a_family(command, hub, family):
    command("push", family, "me/demo")
    for source in (family, family / "d16", "me/demo"):
        status, output, _ = command("select", source, "--min-quality", 0.95, "--json")
        assert status == 0 and json.loads(output)["level"] == "d4"


def test_bad_input(command, hub, family, tmp_path):
    for arguments, message in [
        (("push", tmp_path, "me/demo"), "is no repo of a Matryoshka family: it holds no matryoshka.json"),
        (("push", family, "me/de mo"), "the push of 'me/de mo' is impossible: Repo id must"),
        (("push", family, "you/demo"), "the push of you/demo is not allowed to this token; it may write to me"),
        (("family", "show", "me/none"), "there is no folder me/none, and no such repo on the Hub"),
        (("family", "show", tmp_path), "is no repo of a Matryoshka family"),
        (("quickstart", "--push", "you/demo"), "the push of you/demo is not allowed to this token"),
    ]:
        status, output, error = command(*arguments)
        assert status == 2 and output == "" and message in error and error.count("\n") == 1
