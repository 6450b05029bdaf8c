"""How pip on this machine reaches its package index: what a build has to know, and no more."""

import configparser
from collections.abc import Mapping
from pathlib import Path

_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy")
_SECTIONS = ("global", "install")
_SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def pip_conf(environ: Mapping[str, str]) -> str:
    """A pip configuration with the host's index, proxy and trusted hosts; its paths mean nothing in a build.

    The order is pip's: system, user, the file that PIP_CONFIG_FILE names, environment variables.
    """
    home = Path(environ.get("HOME", "/root"))
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    if environ.get("PIP_CONFIG_FILE"):
        files.append(Path(environ["PIP_CONFIG_FILE"]))
    parser = configparser.RawConfigParser()
    parser.read(file for file in files if file.is_file())
    found: dict[str, str] = {}
    for option in _OPTIONS:
        for section in _SECTIONS:
            if parser.has_option(section, option):
                found[option] = parser.get(section, option)
        variable = "PIP_" + option.upper().replace("-", "_")
        if environ.get(variable):
            found[option] = environ[variable]
    return "[global]\n" + "".join(f"{option} = {_indent(value)}\n" for option, value in found.items())


def certificates(environ: Mapping[str, str]) -> Path:
    """The bundle of certificate authorities that the host trusts."""
    return Path(environ.get("PIP_CERT") or environ.get("SSL_CERT_FILE") or _SYSTEM_BUNDLE)


def _indent(value: str) -> str:
    """Several values stand on lines of their own, which must be indented."""
    return "\n    ".join(value.split("\n"))
