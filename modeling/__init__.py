"""What a Hub repo carries: configurations, models, sentence-transformers modules.

Importing this package registers the architectures with the AutoClasses, so that its users load our repos without
`trust_remote_code`. A repo itself never imports this file.
"""

from transformers import AutoConfig, AutoModel

from .configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from .modeling_matryoshka_adaptor import MatryoshkaAdaptorModel


AutoConfig.register(MatryoshkaAdaptorConfig.model_type, MatryoshkaAdaptorConfig)
AutoModel.register(MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel)

__all__ = ["MatryoshkaAdaptorConfig", "MatryoshkaAdaptorModel"]
