# A key names one request for good, so a made-up one that is well-formed is replaced by one that nobody used: otherwise almost every
# request would be refused for its key alone. What malformed and repeated keys do has tests of its own.
import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers or {}
    for name in list(headers):
        if name.lower() == "idempotency-key" and 0 < len(str(headers[name]).strip()) <= 255 and str(headers[name]).isascii():
            headers[name] = str(uuid.uuid4())
