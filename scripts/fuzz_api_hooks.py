"""What schemathesis has to know of conmond's API beyond its document; see fuzz-api."""

import schemathesis


@schemathesis.hook
def filter_query(context, query):
    """A stream that is followed has no end to wait for; that it is one, other tests show."""
    follow = (query or {}).get("follow")
    return str(follow).lower() not in ("true", "1")
