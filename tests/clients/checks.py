"""What the scripts of clients share: where the server is, and a run of all their checks."""

import os
import sys
import traceback

URL = os.environ["VRAMD_URL"]  # http://127.0.0.1:PORT
MODEL = os.environ["VRAMD_MODEL"]

WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                                            "unit": {"type": "string", "enum": ["C", "F"]}},
           "required": ["city", "unit"], "additionalProperties": False}


def run(names):
    """Calls each function whose name begins with check_, all of them; exits with 1 if one has failed."""
    failed = 0
    for name, check in list(names.items()):
        if not name.startswith("check_"):
            continue
        try:
            check()
            print("  ok    ", name[6:].replace("_", " "))
        except Exception as e:
            failed += 1
            print("  FAILED", name[6:].replace("_", " "))
            at = [f for f in traceback.extract_tb(e.__traceback__) if "with_" in f.filename][-1]
            print(f"         {at.name}, line {at.lineno}: {type(e).__name__}: {' '.join(str(e).split())[:300]}")
    sys.exit(1 if failed else 0)
