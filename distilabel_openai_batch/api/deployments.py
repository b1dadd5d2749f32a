"""Deployments of Azure, whose names requests have in place of the names of models."""

from __future__ import annotations

import re

# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#global-batch-deployment
DEPLOYMENT_ADVICE = (
    "On Azure `model` has to be the name of a deployment, and batches need a deployment of the type Global Batch or"
    " Data Zone Batch."
)
"""Sentence on the deployment that a refused request has to name."""

# Azure's refusal of a synchronous call: https://github.com/chatboxai/chatbox/issues/861. Azure's documentation does not
# list the code of a batch with such a model → any mention of a model or a deployment counts there.
_NO_DEPLOYMENT = re.compile(r"\bAPI deployment\b.*\bdoes not exist|DeploymentNotFound")
_MODEL_OR_DEPLOYMENT = re.compile(r"model|deployment", re.IGNORECASE)
_SEVERAL_MODELS = frozenset({"model_mismatch", "mismatched_model"})


def lacks_deployment(code: str | None, message: str) -> bool:
    """Return whether Azure refused a synchronous request because no deployment has the name."""
    return _NO_DEPLOYMENT.search(f"{code} {message}") is not None


def may_lack_deployment(code: str | None, message: str) -> bool:
    """Return whether an error of Azure's validation is about the model of a batch."""
    return code not in _SEVERAL_MODELS and _MODEL_OR_DEPLOYMENT.search(f"{code} {message}") is not None
