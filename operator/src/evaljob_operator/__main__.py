"""`python -m evaljob_operator --config FILE`."""

import argparse
import asyncio
import sys
from pathlib import Path

from evaljob_operator import handlers, logs
from evaljob_operator.api import ApiError
from evaljob_operator.settings import SettingsError, load
from evaljob_operator.startup import StartError


def main(argv: list[str]) -> int:
    """Run the operator; the exit code."""
    parser = argparse.ArgumentParser(prog="evaljob_operator", description="The operator of evaljob.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the settings")
    try:
        settings = load(parser.parse_args(argv).config)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logs.to(sys.stderr, settings.log_level)
    try:
        asyncio.run(handlers.serve(settings))
    except (StartError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
