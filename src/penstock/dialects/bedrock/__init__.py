"""AWS Bedrock Converse (`POST {base}/model/{model}/converse-stream`), towards an upstream. Streams are binary."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.bedrock import errors
from penstock.dialects.bedrock.build import build_body
from penstock.dialects.bedrock.decode import ConverseDecoder
from penstock.dialects.bedrock.sign import signed
from penstock.dialects.bedrock.wire import OWN

if TYPE_CHECKING:
    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target


class Bedrock:
    name = OWN
    streams_as = "eventstream"

    decoder = ConverseDecoder
    read_error = staticmethod(errors.read_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        """`auth: sigv4` signs with the key, which is a pair; anything else sends it as a bearer token."""
        body, dropped = build_body(request, target)
        verb = "converse-stream" if request.stream else "converse"
        url = endpoint(target, f"/model/{quote(target.model or request.model, safe='')}/{verb}")
        accept = "application/vnd.amazon.eventstream" if request.stream else "application/json"
        headers = {"content-type": "application/json", "accept": accept, **dict(target.headers)}
        if target.auth == "sigv4" and target.key is not None:
            headers = signed(url, headers, body, target.key)
        else:
            headers.update(key_headers(target))
        return HttpRequest("POST", url, tuple(headers.items()), body, dropped)


DIALECT = Bedrock()
