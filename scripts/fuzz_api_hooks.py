"""What schemathesis has to know of conmond's API beyond its document; see fuzz-api."""

import schemathesis

# Words that the document does not list: others are refused where nothing matches them, since an empty answer would hide
# a slip.
WORDS = {"protocol": "udp", "metric": "conmon_pair_bytes_total"}


@schemathesis.hook
def before_call(context, case, kwargs):
    """A stream that is followed has no end to wait for; that it is one, other tests show."""
    query = case.query or {}
    if str(query.get("follow")).lower() == "true":
        query["follow"] = "false"
    is_good = case.meta is not None and case.meta.generation.mode.is_positive
    for name, word in WORDS.items():
        if is_good and name in query:
            query[name] = word
