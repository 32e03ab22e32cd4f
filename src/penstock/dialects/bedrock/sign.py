"""AWS Signature Version 4 for one request, by botocore: the only place that imports it.

The key is `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` where there is one; the region is in the host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError

if TYPE_CHECKING:
    from penstock.canon.target import Secret

_REGION = re.compile(r"//bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


def signed(url: str, headers: dict[str, str], body: bytes, key: Secret) -> dict[str, str]:
    """The headers, with those of the signature."""
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError:
        raise ConfigError(
            "Signing for Bedrock needs botocore.", fix="Install it: pip install 'penstock[bedrock]'."
        ) from None
    region = _REGION.search(url)
    if region is None:
        raise ConfigError(
            "The Bedrock upstream's url names no region.",
            fix="Write it as https://bedrock-runtime.us-east-1.amazonaws.com.",
        )
    access_key, _, rest = key.reveal().partition(":")
    secret_key, _, token = rest.partition(":")
    if not access_key or not secret_key:
        raise ConfigError(
            "The key of the Bedrock upstream is no pair.", fix="Write it as ACCESS_KEY_ID:SECRET_ACCESS_KEY."
        )
    request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
    SigV4Auth(Credentials(access_key, secret_key, token or None), "bedrock", region[1]).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}
