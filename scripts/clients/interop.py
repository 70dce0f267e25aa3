"""The Python client against a real server: HALLMARK_URL, HALLMARK_TOKEN. Any step that is not as it should be raises."""

import datetime
import json
import os
import sys
import uuid

from hallmark_client import AuthenticatedClient
from hallmark_client.api.devices import list_devices
from hallmark_client.api.products import create_product, get_product, list_products
from hallmark_client.models import Problem, Product
from hallmark_client.types import UNSET

client = AuthenticatedClient(base_url=os.environ["HALLMARK_URL"], token=os.environ["HALLMARK_TOKEN"])


def expect(what, have, want):
    if have != want:
        sys.exit(f"{what}: {have!r}, want {want!r}")
    print(f"{what}: {have}")


def all_devices():
    after = UNSET
    while True:
        page = list_devices.sync(client=client, after=after, limit=2)
        if isinstance(page, Problem):
            raise RuntimeError(page.detail)
        yield from page.items
        if not page.next_:
            return
        after = page.next_


ids = [device.id for device in all_devices()]
expect("devices, each once and in order", ids == sorted(set(ids)), True)
expect("devices", len(ids), int(os.environ["HALLMARK_DEVICES"]))

name = "py-" + uuid.uuid4().hex[:12]
product = Product(
    id=name, oem="acme", name="Made by Python", hardware=["A"], update_model="blob", suite="HM-P256-1",
    end_of_support=datetime.datetime(2040, 1, 1, tzinfo=datetime.timezone.utc), created=datetime.datetime.now(datetime.timezone.utc),
)
key = uuid.uuid4().hex
made = create_product.sync_detailed(client=client, body=product, idempotency_key=key)
expect("create a product", made.parsed.id, name)
again = create_product.sync_detailed(client=client, body=product, idempotency_key=key)
expect("create it again with the same key", again.headers.get("Idempotency-Replayed"), "true")
problem = create_product.sync(client=client, body=product, idempotency_key=uuid.uuid4().hex)
expect("create it again with another key", problem.type_, "urn:hallmark:fault:product.exists")
expect("show it", get_product.sync(name, client=client).name, "Made by Python")
expect("list products", name in [p.id for p in list_products.sync(client=client, limit=200).items], True)

# The stream does not end: it is read as it comes. From the first entries on, so that there is something to be told.
with client.get_httpx_client().stream("GET", "/api/v1/events", headers={"Last-Event-ID": "control:0,events:0"}, timeout=30) as stream:
    expect("events", stream.headers["content-type"], "text/event-stream")
    told, last = [], ""
    for line in stream.iter_lines():
        if line.startswith("id: "):
            last = line.removeprefix("id: ")
        if line.startswith("data: "):
            told.append(json.loads(line.removeprefix("data: "))["kind"])
        if len(told) == 3:
            break
expect("events told, and where one goes on", (len(told), last), (3, "control:3,events:0"))
