"""Formats of the OpenAPI document that no pattern can state, for whoever tests the interface by it.

From a shell, against a running node: ``SCHEMATHESIS_HOOKS=tests.api.openapi_formats schemathesis run
http://127.0.0.1:26601/openapi.json --exclude-path-regex '^/v1/txs' ...`` as docs/testing.md shows.
"""

from base64 import urlsafe_b64encode

import schemathesis
from hypothesis import strategies as st

from flockchain.crypto import format_address
from tests.api.rows import UPDATE
from tests.store.history import ALICE, BOB, VALIDATOR

addresses = st.one_of(st.sampled_from((ALICE, BOB, VALIDATOR)), st.binary(min_size=20, max_size=20)).map(format_address)
targets = st.one_of(st.integers(0, 2**63 - 1).map("task:{}".format), addresses.map("validator:{}".format))
cursors = st.integers(0, 2**63 - 1).map(lambda n: urlsafe_b64encode(n.to_bytes(8, "big")).decode().rstrip("="))
ranges = st.tuples(st.integers(0, len(UPDATE) - 1), st.integers(0, 999)).map(lambda r: f"bytes={r[0]}-{r[0] + r[1]}")

schemathesis.openapi.format("flk-address", addresses)
schemathesis.openapi.format("stake-target", targets)
schemathesis.openapi.format("cursor", cursors)
schemathesis.openapi.format("byte-range", ranges)
schemathesis.openapi.format("content-range", st.just(f"bytes */{len(UPDATE)}"))
