"""Saving a nested model in shards by level, and loading one level without the rest."""

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from huggingface_hub import HfApi
from transformers import GenerationConfig, PreTrainedConfig
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging
from transformers.utils.hub import create_and_tag_model_card, resolve_revision

from .level_files import fetch_file, fetch_level_index, fetch_level_shards, indexed_files
from .level_shards import read_level_shards, write_level_shards


# The arguments of `from_pretrained` that say where files come from.
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
# Those that a config must not take for its own.
DTYPE_ARGUMENTS = ("dtype", "torch_dtype", "quantization_config")


class LevelCheckpointsMixin:
    """`save_pretrained(shard_by_level=True)`, `push_to_hub(shard_by_level=True)` and `from_pretrained(level=...)`."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        *,
        shard_by_level: bool = False,
        **kwargs,
    ) -> None:
        """[`~transformers.PreTrainedModel.save_pretrained`], also in shards by level.

        Args:
            shard_by_level (`bool`, *optional*, defaults to `False`):
                Whether to write one file with what the smallest level reads and one with what each further level
                adds, so that `from_pretrained(..., level=...)` fetches only what its level needs. Otherwise, and for
                all other arguments, as in transformers.

        Raises:
            ValueError: If the model cannot be split, because it is quantised or has adapters, or with an argument
                that asks for another layout.
        """
        previous, by_level = indexed_files(save_directory)
        if not shard_by_level:
            super().save_pretrained(save_directory, is_main_process, state_dict, push_to_hub, max_shard_size, **kwargs)
            if by_level and is_main_process:
                _remove_level_shards(Path(save_directory), previous)
            return
        for name in ("variant", "distributed_checkpoint"):
            if kwargs.get(name):
                raise ValueError(f"{name}={kwargs[name]!r} and shard_by_level=True exclude each other")
        if os.path.isfile(save_directory):
            raise NotADirectoryError(f"save_directory {save_directory} is a file; name a folder")
        if is_main_process:
            self._save_level_shards(Path(save_directory), state_dict, previous)
            if push_to_hub:
                repo_id = kwargs.pop("repo_id", None) or Path(save_directory).name
                self.push_to_hub(repo_id, shard_by_level=True, **kwargs)

    def _save_level_shards(self, folder: Path, state: dict | None, previous: set[str]) -> None:
        state = dict(self.state_dict() if state is None else state)
        shapes = {level: self.level_shapes(level) for level in self.config.levels}
        if hasattr(self.config, "quantization_config") or not set().union(*shapes.values()) <= set(state):
            raise ValueError(
                f"this {type(self).__name__} is quantised or has adapters around its layers, so its tensors are not "
                "those of its levels; merge the adapters (merge_and_unload), or save it without shard_by_level"
            )
        state = {name: tensor for name, tensor in state.items() if name not in self._keys_to_ignore_on_save}
        state = remove_tied_weights_from_state_dict(state, self)
        levels = {level: {name: tuple(read[name]) for name in state if name in read} for level, read in shapes.items()}
        # The largest level is the model.
        levels[self.config.levels[-1]] = {name: tuple(tensor.shape) for name, tensor in state.items()}
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".level-shards-", dir=folder) as staging:
            index = write_level_shards(state, levels, staging, self.row_blocks())
            staged_index = Path(staging, SAFE_WEIGHTS_INDEX_NAME)
            staged_index.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            # The code and the configs; with no tensors given it writes no weights.
            with _no_progress_bar():
                super().save_pretrained(folder, state_dict={})
            # The earlier weights go first and the index comes last: a folder never describes weights it does not have.
            shards = set(os.listdir(staging)) - {SAFE_WEIGHTS_INDEX_NAME}
            for name in [SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, *sorted(previous - shards)]:
                (folder / name).unlink(missing_ok=True)
            for name in [*sorted(shards), SAFE_WEIGHTS_INDEX_NAME]:
                os.replace(Path(staging, name), folder / name)

    def push_to_hub(self, repo_id: str, *, shard_by_level: bool = False, **kwargs) -> str:
        """[`~transformers.PreTrainedModel.push_to_hub`], also in shards by level; one commit.

        Args:
            shard_by_level (`bool`, *optional*, defaults to `False`):
                As in [`~LevelCheckpointsMixin.save_pretrained`]. Weights that the repo holds in another layout are
                deleted in the same commit. All other arguments as in transformers.
        """
        if shard_by_level:
            return self._push_level_shards(repo_id, **kwargs)
        return super().push_to_hub(repo_id, **kwargs)

    def _push_level_shards(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: list[str] | str | None = None,
    ) -> str:
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        tags = [*(self.model_tags or ()), *([tags] if isinstance(tags, str) else tags or ())]
        card = create_and_tag_model_card(repo_id, tags, token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, shard_by_level=True)
            card.save(os.path.join(folder, "README.md"))
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or "Upload model",
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                delete_patterns=[SAFE_WEIGHTS_NAME, "model-*.safetensors"],
            )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args,
        level: int | str | None = None,
        **kwargs,
    ) -> Self:
        """[`~transformers.PreTrainedModel.from_pretrained`], also for a single level.

        Args:
            level (`int` or `str`, *optional*):
                The level to load as a model of its own, equal to `cut(level)` of the full one; by default the whole
                model. From a repo that is saved in shards by level, only the shards of this level are fetched and only
                its weights are allocated. All other arguments as in transformers.

        Raises:
            ValueError: If the level does not exist, or the index is damaged or from a newer version.
            OSError: If a shard is missing, cannot be fetched, or is not the one that the index describes.
        """
        path, index = pretrained_model_name_or_path, None
        if path is not None:
            # Once, so that config, index and shards come from one commit.
            names = ("token", "local_files_only", "cache_dir")
            settings = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
            kwargs["revision"] = resolve_revision(path, kwargs.get("revision"), **settings)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        if path is not None and not kwargs.get("variant") and not kwargs.get("gguf_file"):
            index = fetch_level_index(str(path), **hub)
        if index is None and level is None:
            return super().from_pretrained(path, *model_args, **kwargs)
        config, kwargs = cls._load_config(path, hub, kwargs)
        level_name = config.level_name(level)
        if index is None:
            loaded = super().from_pretrained(path, *model_args, config=config, **hub, **kwargs)
            if kwargs.get("output_loading_info"):
                return loaded[0].cut(level), loaded[1]
            return loaded.cut(level)
        adapter = (kwargs.get("adapter_kwargs") or {}).get("_adapter_model_path")
        if adapter or fetch_file(str(path), "adapter_config.json", **hub):
            raise ValueError(
                f"{adapter or path} holds an adapter for a model that is saved in shards by level; keep it in a "
                "folder of its own, load the model, and then the adapter with load_nested_lora"
            )
        state = read_level_shards(fetch_level_shards(str(path), index, level_name, **hub), index)
        sliced = level is not None and cls.levels_are_slices(config)
        if sliced:
            state = {cls.cut_name(config, level, name): tensor for name, tensor in state.items()}
        if cls.can_generate() and kwargs.get("generation_config") is None:
            kwargs["generation_config"] = _load_generation_config(path, hub)
        with_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            None,
            *model_args,
            config=config.cut(level) if sliced else config,
            state_dict=state,
            output_loading_info=True,
            **kwargs,
        )
        model.config.name_or_path = model.name_or_path = str(path)
        if level is not None and not sliced:
            model = model.cut(level)
        return (model, info) if with_info else model

    @classmethod
    def _load_config(cls, path: str | os.PathLike, hub: dict, kwargs: dict) -> tuple[PreTrainedConfig, dict]:
        """The config of a model, and the arguments that are left for the model; the way of `AutoModel`."""
        kwargs = {name: value for name, value in kwargs.items() if name not in HUB_ARGUMENTS}
        config = kwargs.pop("config", None)
        if isinstance(config, PreTrainedConfig):
            return copy.deepcopy(config), kwargs
        kept = {name: kwargs.pop(name) for name in DTYPE_ARGUMENTS if name in kwargs}
        source = path if config is None else config
        config, kwargs = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **hub, **kwargs)
        return config, {**kwargs, **kept}


def _remove_level_shards(folder: Path, shards: set[str]) -> None:
    """Remove what an earlier save by level left, once other weights have taken its place."""
    current, by_level = indexed_files(folder)
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        (folder / SAFE_WEIGHTS_INDEX_NAME).unlink(missing_ok=True)
    elif by_level:
        # Nothing has: only adapters were saved.
        return
    for name in shards - current if not by_level else shards:
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _load_generation_config(path: str | os.PathLike, hub: dict) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(path, **hub)
    except OSError:
        # The model makes one from its own config.
        return None
