"""Backends from AWS (target groups, Auto Scaling groups, EC2 tags): the provider `aws` of LLB."""

from llb_core import hookimpl
from llb_provider_aws.options import AwsOptions
from llb_provider_aws.provider import AwsProvider

__all__ = ["AwsOptions", "AwsProvider", "llb_provider"]


@hookimpl
def llb_provider() -> type[AwsProvider]:
    """Return the provider that this distribution brings."""
    return AwsProvider
