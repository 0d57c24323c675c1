"""Delta dictionary sharing (DDS), a method of PEFT: upgrades of a few KB over a bank of atoms that layers share."""

import os
from collections.abc import Mapping

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from torch import nn

from .dds_bank import check_atoms, encoder_prefix, random_atoms, read_bank, split_name, write_bank
from .dds_config import DdsConfig
from .dds_layer import Atoms, DdsLinear
from .delta_pack import DeltaPack, make_delta_pack


_BERT = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
_MODERNBERT = ["Wqkv", "Wo", "Wi"]


class AtomBank(nn.Module):
    """The atoms of every target and adapter."""

    def put(self, target: str, adapter_name: str, atoms: Atoms) -> None:
        name = self._name(target)
        if name not in self._modules:
            self.add_module(name, nn.ModuleDict())
        self._modules[name][adapter_name] = atoms

    def get(self, target: str, adapter_name: str) -> Atoms:
        return self._modules[self._name(target)][adapter_name]

    def remove(self, adapter_name: str) -> None:
        for adapters in self.children():
            if adapter_name in adapters:
                del adapters[adapter_name]

    @staticmethod
    def _name(target: str) -> str:
        # Names of modules have no dots.
        return target.replace(".", "-")


class DdsModel(BaseTuner):
    """A model whose linear layers get changes that are mixtures of shared atoms.

    The weight of layer `l` of target `t` (query, key, …) becomes `W + dW` with

        `dW_{l,t} = sum_k c_{l,t,k} U_{t,k} V_{t,k}^T + P_{l,t} Q_{l,t}^T`,    k = 1 … `num_atoms`.

    The atoms `U_{t,k} V_{t,k}^T` are of rank `rank` and start with Frobenius norm 1; all layers of a target share
    them. The coefficients `c` are 0 at first, so that the model starts unchanged. They are all that is trained, but
    for the bank if `train_bank`, and for the private remainder `P Q^T` if `private_rank` (as in LoRA, `P` is 0 at
    first). The nearest published methods compress whole weights so: MASA (arXiv 2508.04581) with matrices that layers
    share, Basis Sharing (arXiv 2410.03765) with basis vectors.

    A target is what has the same name but for the number of the layer. A fused weight is one target, with one
    coefficient an atom: query, key and value of ModernBERT (`Wqkv`) and the two halves of its feed-forward network
    (`Wi`) go together. So 16 atoms make 96 numbers a layer of BERT and 64 of ModernBERT. Where the layers of a target
    have several sizes, each takes the leading slice of the atoms, as each level of a nested model does.

    A step of Adam moves a coefficient by the learning rate, and with it the norm of a whole weight by no more: the
    learning rate must be larger than that of LoRA, by about ten times.

    The method is registered with PEFT when this module is imported, and with `hf_matryoshka.DdsConfig`; import it
    before `PeftModel.from_pretrained` too. [`~trainers.dds_bank.init_bank_from_differences`] makes atoms from
    trained checkpoints, which a few coefficients serve better than random ones.

    Args:
        model (`torch.nn.Module`): The model, stock or nested.
        config ([`DdsConfig`]): The options.
        adapter_name (`str`): Name of the adapter.
    """

    uses_shared_state = True
    prefix = "dds_"
    tuner_layer_cls = DdsLinear
    target_module_mapping = {
        "bert": _BERT,
        "delta_bert": _BERT,
        "modernbert": _MODERNBERT,
        "delta_modernbert": _MODERNBERT,
    }

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        self.dds_bank = AtomBank()

    def _create_and_replace(
        self,
        config: DdsConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        if isinstance(target, DdsLinear):
            target.update_layer(adapter_name, config)
            return
        if not isinstance(target, nn.Linear):
            raise ValueError(
                f"{current_key} is a {type(target).__name__}, but DDS adapts linear layers; leave it out of "
                "target_modules"
            )
        layer = DdsLinear(target, adapter_name, config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        # Only now it is known which layers share atoms, and how large the largest is.
        config = self.peft_config[adapter_name]
        trains = config.train_bank and adapter_name in self.active_adapters and not config.inference_mode
        for target, layers in self.dds_layers(adapter_name).items():
            found = list(layers.values())
            shape = tuple(max(layer.weight.shape[axis] for layer in found) for axis in (0, 1))
            left, right = random_atoms(target, shape, config.num_atoms, config.rank, config.bank_seed)
            device = found[0].weight.device
            atoms = Atoms(left.to(device), right.to(device)).requires_grad_(trains)
            self.dds_bank.put(target, adapter_name, atoms)
            for layer in found:
                layer.atoms[adapter_name] = atoms

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        self.dds_bank.remove(adapter_name)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        found = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        # The bank is saved once, from the model; the layers refer to it.
        references = [name for name, module in model.named_modules() if isinstance(module, DdsLinear)]
        references = tuple(f"{name}.atoms." for name in references)
        return {name: tensor for name, tensor in found.items() if not name.startswith(references)}

    def dds_adapter(self, adapter_name: str | None = None) -> str:
        """The name of an adapter, by default of the active one.

        Raises:
            ValueError: If there is no such adapter, or several are active.
        """
        if adapter_name is None and len(self.active_adapters) != 1:
            raise ValueError(f"the adapters {', '.join(self.active_adapters)} are active; give adapter_name")
        name = self.active_adapters[0] if adapter_name is None else adapter_name
        if name not in self.peft_config:
            raise ValueError(f"there is no adapter {name!r}; there are {', '.join(self.peft_config)}")
        return name

    def dds_layers(self, adapter_name: str) -> dict[str, dict[str, DdsLinear]]:
        """The layers of an adapter in the order of the model, by target and number, without the prefix of the
        encoder."""
        layers: dict[str, dict[str, DdsLinear]] = {}
        prefix = encoder_prefix(self.model)
        for name, module in self.model.named_modules():
            if isinstance(module, DdsLinear) and adapter_name in module.dds_coefficients:
                target, number = split_name(name.removeprefix(prefix))
                layers.setdefault(target, {})[number] = module
        return layers

    def bank_tensors(self, adapter_name: str | None = None) -> dict[str, torch.Tensor]:
        """Copies of the atoms: `<target>.left` and `<target>.right`, as in [`Atoms`]."""
        name, bank = self.dds_adapter(adapter_name), {}
        for target in self.dds_layers(name):
            for side, tensor in self.dds_bank.get(target, name).named_parameters():
                bank[f"{target}.{side}"] = tensor.detach().cpu().clone()
        return bank

    def save_bank(self, path: str | os.PathLike, adapter_name: str | None = None) -> None:
        """Writes the atoms of an adapter to a safetensors file, for other models and for [`apply_delta_pack`].

        Args:
            path (`str` or `os.PathLike`): The file.
            adapter_name (`str`, *optional*): The adapter; the active one by default.
        """
        write_bank(path, self.bank_tensors(adapter_name))

    @torch.no_grad()
    def load_bank(self, bank: str | os.PathLike | Mapping[str, torch.Tensor], adapter_name: str | None = None) -> None:
        """Takes the atoms of an adapter from a file of [`save_bank`].

        Args:
            bank (`str`, `os.PathLike` or `Mapping`): The file, or its tensors.
            adapter_name (`str`, *optional*): The adapter; the active one by default.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such file, lacks a target, or has atoms of other shapes.
        """
        name, tensors = self.dds_adapter(adapter_name), read_bank(bank)
        pairs = []
        for target in self.dds_layers(name):
            own = self.dds_bank.get(target, name)
            left, right = check_atoms(tensors, target, own.left.shape, own.right.shape)
            pairs += [(own.left, left), (own.right, right)]
        for own, loaded in pairs:
            own.copy_(loaded)

    def export_delta_pack(
        self,
        path: str | os.PathLike | None = None,
        dtype: torch.dtype = torch.float16,
        adapter_name: str | None = None,
    ) -> DeltaPack:
        """What an adapter learned beside its bank, in a file of a few KB.

        Args:
            path (`str` or `os.PathLike`, *optional*): A `.safetensors` file to write.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float16`): `torch.float16` or `torch.float32`.
            adapter_name (`str`, *optional*): The adapter; the active one by default.

        Returns:
            [`DeltaPack`]: With `pack_bytes`, and beside it `bank_bytes`: the pack is of use only where the bank is.

        Raises:
            ValueError: If a value does not fit `dtype`, the adapter has more than a pack holds (`modules_to_save`), or
                adapters are merged.
        """
        pack = make_delta_pack(self, self.dds_adapter(adapter_name), dtype)
        if path is not None:
            pack.save(path)
        return pack


register_peft_method(name="dds", config_cls=DdsConfig, model_cls=DdsModel)
