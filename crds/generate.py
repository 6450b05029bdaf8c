"""Write, or check, every file that is generated from the models: the CRD (twice) and the JSON Schemas.

Usage: python crds/generate.py [--check]
"""

import json
import sys
from pathlib import Path

import yaml
from pydantic import BaseModel

from evaljob.crd import crd
from evaljob.result import Failure, PartitionResult
from evaljob.summary import Summary
from evaljob.task import Task

ROOT = Path(__file__).parent.parent
HEAD = "# Generated from operator/src/evaljob/spec.py by `make crd`; edits here are overwritten.\n"


def generated() -> dict[str, str]:
    """Path (from the repository's root) -> content."""
    document = HEAD + yaml.safe_dump(crd(), sort_keys=False, width=110, allow_unicode=True)
    schemas: dict[str, type[BaseModel]] = {
        "task": Task,
        "partition-result": PartitionResult,
        "failure": Failure,
        "summary": Summary,
    }
    return {
        "crds/evaljobs.yaml": document,
        # Helm reads only files inside the chart.
        "charts/evaljob/files/evaljobs.yaml": document,
        **{
            f"docs/schemas/{name}.json": json.dumps(model.model_json_schema(), indent=1) + "\n"
            for name, model in schemas.items()
        },
    }


def main() -> int:
    """Return 1 when --check finds a file that is not what it should be."""
    stale = []
    for name, content in generated().items():
        path = ROOT / name
        if path.exists() and path.read_text() == content:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for name in stale:
        print(f"{'not up to date, run make crd' if '--check' in sys.argv else 'written'}: {name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
