"""Say in one line what went wrong with a call to AWS, and what helps.

Nothing of what AWS or botocore say is passed on unseen: their texts may hold a whole response, the
output of a program that prints credentials, or a signed request with its session token.
"""

from __future__ import annotations

import re

from botocore import exceptions as boto  # type: ignore[import-untyped]

from llb_core import ProviderError

_ACTIONS = {
    "DescribeTargetGroups": "elasticloadbalancing:DescribeTargetGroups",
    "DescribeTargetHealth": "elasticloadbalancing:DescribeTargetHealth",
    "DescribeInstances": "ec2:DescribeInstances",
    "DescribeAutoScalingGroups": "autoscaling:DescribeAutoScalingGroups",
    "AssumeRole": "sts:AssumeRole",
    "AssumeRoleWithWebIdentity": "sts:AssumeRoleWithWebIdentity",
    "GetRoleCredentials": "sso:GetRoleCredentials",
}
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "Client.UnauthorizedOperation",
        "UnauthorizedAccess",
        "UnauthorizedOperation",
    }
)
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
_REFUSED = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_THROTTLED = frozenset(
    {
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_WHOSE_CREDENTIALS = "the environment, the profile or the instance's role"
_CREDENTIALS: tuple[tuple[type[boto.BotoCoreError], str], ...] = (
    (boto.NoCredentialsError, f"there are no credentials in {_WHOSE_CREDENTIALS}"),
    (boto.PartialCredentialsError, "the credentials lack one of key, secret and token"),
    (boto.TokenRetrievalError, "the sign-on has ended: sign in again (aws sso login)"),
    (boto.UnauthorizedSSOTokenError, "the sign-on has ended: sign in again (aws sso login)"),
    (boto.SSOTokenLoadError, "the sign-on has ended: sign in again (aws sso login)"),
    (boto.CredentialRetrievalError, "the credentials could not be retrieved"),
    (boto.MetadataRetrievalError, "the instance's or container's role gave no credentials"),
)
_FAULTS: tuple[tuple[type[boto.BotoCoreError], str], ...] = (
    (
        boto.NoRegionError,
        "no region is set: write region, or set AWS_DEFAULT_REGION or the profile's region",
    ),
    (boto.ProfileNotFound, "the profile is in none of AWS's configuration files"),
    (boto.ConfigParseError, "AWS's own configuration file can't be read"),
    (boto.ConfigNotFound, "AWS's own configuration file is not there"),
    (
        boto.ConnectTimeoutError,
        "no connection in time: may this host reach AWS? or raise connect_timeout",
    ),
    (boto.ReadTimeoutError, "no answer in time: raise read_timeout where that lasts"),
    (boto.SSLError, "the server's certificate is not trusted, or TLS fails"),
    (boto.ProxyConnectionError, "the proxy can't be reached"),
    (boto.EndpointConnectionError, "can't be reached"),
    (boto.ConnectionClosedError, "the connection broke off"),
    (boto.HTTPClientError, "the connection fails"),
    (boto.PaginationError, "the pages of the answer go round in a circle"),
)
_WHO = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::\d{12}:[\w+=,.@/-]+")
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_-]{36,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}")
_LONGEST = 160


class AwsError(ProviderError):
    """A call to AWS failed; `code` is AWS's own word for it, empty where the answer never came.

    `is_of_credentials` tells that other credentials may help, as there may be by now.
    """

    def __init__(self, text: str, *, code: str = "", is_of_credentials: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_of_credentials = is_of_credentials


def explain(
    error: Exception, place: str, operation: str, *, about: str = "", wrong: str = ""
) -> AwsError:
    """Return what to raise for an error that botocore raised in a call; `place` names the AWS, and
    `about` whom was asked for. `wrong` is what is known to be wrong with an answer that botocore
    can't parse."""
    if isinstance(error, boto.ClientError):
        return _of_answer(error, place, operation, about)
    for kind, text in _CREDENTIALS:
        if isinstance(error, kind):
            return AwsError(f"{place}: {text}", is_of_credentials=True)
    for kind, text in _FAULTS:
        if isinstance(error, kind):
            return AwsError(f"{place}: {operation}{about}: {text}")
    if isinstance(error, boto.BotoCoreError) and not isinstance(error, boto.ClientError):
        text = f"{type(error).__name__}"
        return AwsError(f"{place}: {operation}{about}: the call fails ({text})")
    if not wrong and isinstance(error, ValueError):
        wrong = str(error)  # Of a number that is none: it shows that value alone.
    return unreadable(place, operation, about=about, wrong=wrong)


def unreadable(
    place: str,
    operation: str,
    *,
    about: str = "",
    lacks: str = "",
    wrong: str = "",
    whose: str = "",
) -> AwsError:
    """Return what to raise for an answer that came but is not what AWS sends.

    It `lacks` a key, or something is `wrong` in it; `whose` names the entry, where it has any, and
    `about` whom was asked for.
    """
    what = f"{whose or 'it'} has no {lacks}" if lacks else ""
    if wrong:
        what = f"{whose}: {_passable(wrong)}" if whose else _passable(wrong)
    detail = f" ({what})" if what else ""
    return AwsError(
        f"{place}: {operation}{about}: what came is no answer of AWS{detail}: does endpoint_url, "
        "or a proxy, lead elsewhere?"
    )


def _of_answer(error: boto.ClientError, place: str, called: str, about: str) -> AwsError:
    fault = error.response.get("Error") or {}
    code, message = str(fault.get("Code") or ""), str(fault.get("Message") or "")
    operation = error.operation_name or called
    action = _ACTIONS.get(operation, operation)
    asked = f"{place}: {operation}{about if operation == called else ''}"
    if code in _DENIED:
        who = _WHO.search(message)
        whom = f" to {who[0]}" if who else ""
        if "explicit deny" in message:
            text = f"access denied: a policy forbids {action}{whom} explicitly"
        else:
            text = f"access denied: no policy allows {action}{whom}"
        return AwsError(f"{place}: {text}", code=code, is_of_credentials=True)
    if code in _EXPIRED:
        text = f"the credentials have expired ({code}), or the clock is wrong: renew them"
        return AwsError(f"{asked}: {text}", code=code, is_of_credentials=True)
    if code in _REFUSED:
        text = f"the credentials are not valid here ({code}): see {_WHOSE_CREDENTIALS}"
        return AwsError(f"{asked}: {text}", code=code, is_of_credentials=True)
    if code in _THROTTLED:
        text = f"AWS throttles it ({code}): raise refresh, or have the account's limit raised"
        return AwsError(f"{asked}: {text}", code=code)
    status = (error.response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    text = f"AWS says {_passable(code) or status}"
    if message and not message.startswith("<"):
        text += f": {_passable(message)}"
    return AwsError(f"{asked}: {text}", code=code)


def _passable(text: str) -> str:
    """Return a text cut short, and without what may be a key."""
    line = _LONG_WORD.sub("…", " ".join(text.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
