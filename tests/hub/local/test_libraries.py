"""Real pushes and loads by the libraries that people use, in processes of their own."""

import json


PUSH = """
import json
import os
import sys

import torch
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi, ModelCard, ModelCardData, PyTorchModelHubMixin
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel, AutoTokenizer, BertForSequenceClassification, Trainer, TrainingArguments, pipeline,
)

torch.set_num_threads(1)
torch.manual_seed(0)
api = HfApi()
source = os.environ["SOURCE"]
report = {}
text = "a cat in the river"

# transformers: weights, tokenizer, card, revisions
model = AutoModel.from_pretrained(source).eval()
tokenizer = AutoTokenizer.from_pretrained(source)
inputs = tokenizer(text, return_tensors="pt")
expected = model(**inputs).last_hidden_state


def same(other):
    return torch.equal(other.eval()(**inputs).last_hidden_state, expected)


info = model.push_to_hub("me/bert", private=True)
ModelCard.from_template(ModelCardData(license="mit", tags=["matryoshka"]), model_id="bert").push_to_hub("me/bert")
card = ModelCard.load("me/bert").content
tokenizer.push_to_hub("me/bert")
report["loads by id"] = same(AutoModel.from_pretrained("me/bert"))
report["pinned"] = same(AutoModel.from_pretrained("me/bert", revision=info.oid))
api.create_tag("me/bert", tag="v1")
with torch.no_grad():
    model.embeddings.word_embeddings.weight.add_(1)
model.push_to_hub("me/bert")
model.push_to_hub("me/bert", revision="dev")
report["card survives"] = ModelCard.load("me/bert").content == card
report["tag"] = same(AutoModel.from_pretrained("me/bert", revision="v1"))
report["main moved"] = not same(AutoModel.from_pretrained("me/bert"))
report["branch"] = torch.equal(
    AutoModel.from_pretrained("me/bert", revision="dev").embeddings.word_embeddings.weight,
    model.embeddings.word_embeddings.weight,
)
report["tokenizer"] = AutoTokenizer.from_pretrained("me/bert").encode(text) == tokenizer.encode(text)
report["pipeline"] = len(pipeline("feature-extraction", "me/bert", device="cpu")(text)[0]) == inputs.input_ids.shape[1]
metadata = api.get_safetensors_metadata("me/bert")
report["safetensors metadata"] = sum(metadata.parameter_count.values()) == sum(p.numel() for p in model.parameters())

# sharded weights
model.push_to_hub("me/sharded", max_shard_size="20KB")
report["shards"] = len([name for name in api.list_repo_files("me/sharded") if name.endswith(".safetensors")]) > 2
report["sharded"] = torch.equal(AutoModel.from_pretrained("me/sharded").pooler.dense.weight, model.pooler.dense.weight)

# sentence-transformers
encoder = SentenceTransformer(source, device="cpu")
encoder.push_to_hub("me/encoder")
loaded = SentenceTransformer("me/encoder", device="cpu", truncate_dim=8)
report["encoder"] = (loaded.encode(text) == encoder.encode(text)[:8]).all().item()

# datasets
data = Dataset.from_dict({"text": [text, "a dog"] * 4, "label": [0, 1] * 4})
data.push_to_hub("me/data", split="train")
data.select([0]).push_to_hub("me/data", split="test")
report["dataset"] = {name: len(split) for name, split in load_dataset("me/data").items()}
report["streaming"] = [row["label"] for row in load_dataset("me/data", split="train", streaming=True)][:3]

# Trainer
classifier = BertForSequenceClassification.from_pretrained(source)
rows = data.map(lambda row: tokenizer(row["text"], padding="max_length", max_length=8), remove_columns="text")
arguments = TrainingArguments(
    "trained", max_steps=2, save_steps=1, push_to_hub=True, hub_model_id="me/trained", hub_strategy="every_save",
    report_to="none", use_cpu=True, disable_tqdm=True,
)
trainer = Trainer(classifier, arguments, train_dataset=rows, processing_class=tokenizer)
trainer.train()
trainer.push_to_hub()
again = BertForSequenceClassification.from_pretrained("me/trained")
report["trainer"] = torch.equal(again.classifier.weight, classifier.classifier.weight)

# peft
base = BertForSequenceClassification.from_pretrained("me/trained")
lora = get_peft_model(base, LoraConfig(target_modules=["query"]))
with torch.no_grad():
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            parameter.add_(0.1)
lora.push_to_hub("me/lora")
base = BertForSequenceClassification.from_pretrained("me/trained")
adapted = PeftModel.from_pretrained(base, "me/lora").eval()
report["peft"] = torch.equal(adapted(**inputs).logits, lora.eval()(**inputs).logits)


class Plain(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self, width: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(width, width)


plain = Plain(5)
plain.push_to_hub("me/plain")
report["mixin"] = torch.equal(Plain.from_pretrained("me/plain").layer.weight, plain.layer.weight)

# a space, a folder that loses files, a collection
api.create_repo("me/demo", repo_type="space", space_sdk="gradio")
os.makedirs("app", exist_ok=True)
open("app/app.py", "w").write("print()")
api.upload_folder(repo_id="me/demo", repo_type="space", folder_path="app")
open("app/new.py", "w").write("print()")
os.remove("app/app.py")
api.upload_folder(repo_id="me/demo", repo_type="space", folder_path="app", delete_patterns="*.py")
collection = api.create_collection("Everything", exists_ok=True)
for name, kind in (("me/bert", "model"), ("me/data", "dataset"), ("me/demo", "space")):
    api.add_collection_item(collection.slug, name, kind, exists_ok=True)
report["collection"] = [item.item_id for item in api.get_collection(collection.slug).items]
api.delete_repo("me/plain")

print(json.dumps(report))
"""

OFFLINE = """
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

AutoModel.from_pretrained("me/bert")
AutoTokenizer.from_pretrained("me/bert")
SentenceTransformer("me/encoder", device="cpu")
print("loaded")
"""


def test_everything(hub, run_script, tiny_sentence_transformer):
    output = run_script(PUSH, without_package=True, SOURCE=tiny_sentence_transformer)
    report = json.loads(output.splitlines()[-1])
    assert report.pop("dataset") == {"train": 8, "test": 1}
    assert report.pop("streaming") == [0, 1, 0]
    assert report.pop("collection") == ["me/bert", "me/data", "me/demo"]
    assert {name: value for name, value in report.items() if value is not True} == {}

    titles = [commit.title for commit in hub.commits("me/trained")]
    assert titles[-1] == "initial commit" and any("step 1" in title for title in titles)
    assert {"README.md", "model.safetensors", "tokenizer.json", "training_args.bin"} <= hub.files("me/trained").keys()
    assert len(hub.commits("me/bert")) == 5  # created, weights, card, tokenizer, weights
    assert sorted(hub.files("me/demo", "space")) == [".gitattributes", "new.py"]
    assert "me/plain" not in hub.repos()
    assert {request.status for request in hub.requests} <= {200, 206, 401, 404, 409}

    hub.requests.clear()
    output = run_script(OFFLINE, without_package=True, HF_HUB_OFFLINE="1")
    assert output.split() == ["loaded"] and not hub.requests
