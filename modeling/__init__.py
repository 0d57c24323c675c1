"""What a Hub repo carries: configurations, models, sentence-transformers modules.

Importing this package registers the architectures with the AutoClasses, so that its users load our repos without
`trust_remote_code`. A repo itself never imports this file.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from .configuration_delta_bert import DeltaBertConfig
from .configuration_delta_modernbert import DeltaModernBertConfig
from .configuration_fractalformer import FractalFormerConfig
from .configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from .configuration_matryoshka_funnel import MatryoshkaFunnelConfig
from .configuration_matryoshka_gpt import MatryoshkaGPTConfig
from .configuration_matryoshka_mamba import MatryoshkaMambaConfig
from .modeling_delta_bert import DeltaBertForMaskedLM, DeltaBertForSequenceClassification, DeltaBertModel
from .modeling_delta_modernbert import (
    DeltaModernBertForMaskedLM,
    DeltaModernBertForSequenceClassification,
    DeltaModernBertModel,
)
from .modeling_fractalformer import FractalFormerForCausalLM, FractalFormerModel
from .modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from .modeling_matryoshka_funnel import MatryoshkaFunnelModel
from .modeling_matryoshka_gpt import MatryoshkaGPTForCausalLM, MatryoshkaGPTModel
from .modeling_matryoshka_mamba import MatryoshkaMambaModel


AutoConfig.register(MatryoshkaAdaptorConfig.model_type, MatryoshkaAdaptorConfig)
AutoModel.register(MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel)
AutoConfig.register(DeltaBertConfig.model_type, DeltaBertConfig)
AutoModel.register(DeltaBertConfig, DeltaBertModel)
AutoModelForMaskedLM.register(DeltaBertConfig, DeltaBertForMaskedLM)
AutoModelForSequenceClassification.register(DeltaBertConfig, DeltaBertForSequenceClassification)
AutoConfig.register(DeltaModernBertConfig.model_type, DeltaModernBertConfig)
AutoModel.register(DeltaModernBertConfig, DeltaModernBertModel)
AutoModelForMaskedLM.register(DeltaModernBertConfig, DeltaModernBertForMaskedLM)
AutoModelForSequenceClassification.register(DeltaModernBertConfig, DeltaModernBertForSequenceClassification)
AutoConfig.register(MatryoshkaMambaConfig.model_type, MatryoshkaMambaConfig)
AutoModel.register(MatryoshkaMambaConfig, MatryoshkaMambaModel)
AutoConfig.register(MatryoshkaGPTConfig.model_type, MatryoshkaGPTConfig)
AutoModel.register(MatryoshkaGPTConfig, MatryoshkaGPTModel)
AutoModelForCausalLM.register(MatryoshkaGPTConfig, MatryoshkaGPTForCausalLM)
AutoConfig.register(FractalFormerConfig.model_type, FractalFormerConfig)
AutoModel.register(FractalFormerConfig, FractalFormerModel)
AutoModelForCausalLM.register(FractalFormerConfig, FractalFormerForCausalLM)
AutoConfig.register(MatryoshkaFunnelConfig.model_type, MatryoshkaFunnelConfig)
AutoModel.register(MatryoshkaFunnelConfig, MatryoshkaFunnelModel)

__all__ = [
    "DeltaBertConfig",
    "DeltaBertForMaskedLM",
    "DeltaBertForSequenceClassification",
    "DeltaBertModel",
    "DeltaModernBertConfig",
    "DeltaModernBertForMaskedLM",
    "DeltaModernBertForSequenceClassification",
    "DeltaModernBertModel",
    "FractalFormerConfig",
    "FractalFormerForCausalLM",
    "FractalFormerModel",
    "MatryoshkaAdaptorConfig",
    "MatryoshkaAdaptorModel",
    "MatryoshkaFunnelConfig",
    "MatryoshkaFunnelModel",
    "MatryoshkaGPTConfig",
    "MatryoshkaGPTForCausalLM",
    "MatryoshkaGPTModel",
    "MatryoshkaMambaConfig",
    "MatryoshkaMambaModel",
]
