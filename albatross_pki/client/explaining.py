"""What stands at the end of every ``--help`` of the client programs: arguments, exit codes, and examples to type.

One table of examples serves every program; what differs is how a host is named and how names are spelled: ``dev:web``
on the host itself, ``web`` through TLS, where the path is that of the delegation. A test types every example.
"""

from collections.abc import Sequence

import click

from albatross_pki.console_script import INTERRUPTED
from albatross_pki.errors import ExitCode

REMOTE = "albatross-client-bistro"
NAME_HERE, NAME_THERE = "dev:web", "web"

ARGUMENTS = {
    "UNIKERNEL": "its name: dev:web on the host itself, web through TLS (the path is your delegation's)",
    "UNIKERNEL...": "names, and paths (dev:, or : for all) for everything that runs in them",
    "[UNIKERNEL]": "its name; with --all a path, everything if it is not given",
    "[NAME]": "a unikernel, or a path; everything, if it is not given",
    "IMAGE": "the file of a Solo5 image",
    "BLOCK": "the name of a block device, in the path of the unikernels that use it",
    "SIZE-MB": "its size in MB (2^20 octets)",
    "PATH": "the path of a delegation, such as dev or dev:web",
    "UNIKERNELS": "how many may exist at and below the path",
    "PID": "the process to watch",
    "CA": "the root that the server must be below",
    "CERT": "a certificate with a command, and those above it behind it",
    "KEY": "the private key of the first certificate in CERT",
    "HOST[:PORT]": "the host's TLS endpoint; 1025, if no port is given",
}
FILES = {
    "plan": "what is wanted, in TOML",
    "apply": "what is wanted, in TOML",
    "set-block": "the new content",
    "export-dump": "the file to make",
}

_LOCAL = (ExitCode.OK, ExitCode.REMOTE_COMMAND, ExitCode.COMMUNICATION, ExitCode.CONNECT, ExitCode.USAGE)
_TLS = (ExitCode.CHAIN, ExitCode.LOCAL_AUTHENTICATION, ExitCode.REMOTE_AUTHENTICATION)
INTERRUPTION = "interrupted with Ctrl-C"
MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.CHAIN: "our own chain would be refused; nothing was sent",
    ExitCode.REMOTE_COMMAND: "the host answered with a failure",
    ExitCode.HTTP: "the build server did not answer as it should",
    ExitCode.LOCAL_AUTHENTICATION: "the server refused our certificate",
    ExitCode.REMOTE_AUTHENTICATION: "we refused the server's certificate; it saw nothing of ours",
    ExitCode.COMMUNICATION: "the connection broke, or what came is no answer",
    ExitCode.CONNECT: "nobody could be connected to",
    ExitCode.USAGE: "the command line, a file or a policy does not allow it; nothing was sent",
}
ENVIRONMENT = [("ALBATROSS_OPTION", "sets an option where it is not typed: ALBATROSS_CA_KEY for --ca-key")]
SOMETHING_TO_DO = {"plan": "there is something to do", "update": "--dry-run found something to do"}
NO_HOST = frozenset({"inspect", "inspect-dump", "extract-dump", "export-dump"})

# what follows the word; {web} and {vol} are names as the program spells them, {path} the path of a delegation
EXAMPLES: dict[str, Sequence[str]] = {
    "info": ("", "-n {web} -o json"),
    "get": ("{web} --to web.copy",),
    "create": ("{web} web.hvt --mem 64 --net service:br0 --arg=--ipv4=10.0.0.2/24", "-f {web} web.hvt --wait"),
    "destroy": ("{web}",),
    "restart": ("{web}", "{web} --replace-arguments --mem 64 --net service:br0 --arg=--ipv4=10.0.0.3/24"),
    "policy": ("", "-o json"),
    "add-policy": ("{path} 4 --mem 512 --cpu 0 --cpu 1 --block 1024 --bridge br0",),
    "replace-policy": ("{path} 2 --mem 256 --cpu 0",),
    "remove-policy": ("--path {path}",),
    "block": ("", "--name {vol}"),
    "create-block": ("{vol} 64", "{vol} 64 --data disk.img"),
    "set-block": ("{vol} disk.img --compression-level 6",),
    "dump-block": ("{vol} --to disk.copy",),
    "destroy-block": ("{vol}",),
    "console": ("{web} -n 100", "{web} --since 10m", ": --grep 'error|warn' --no-follow"),
    "inactive-consoles": ("",),
    "stats": ("-n {web}", "--lines 1 -o json"),
    "stats-add": ("4711 -n {web} --bridge service:tap0",),
    "stats-remove": ("-n {web}",),
    "status": ("", "-n {web} -o json"),
    "stop": ("{web}",),
    "start": ("{web}",),
    "rollback": ("{web}",),
    "events": ("--since 2h", "-n {web} --follow"),
    "host-info": ("", "-o json"),
    "top": ("", "--sort memory", "--once -o json"),
    "update": ("{web} --dry-run", "--all", "{web} --http-host https://builds.example.org"),
    "plan": ("web.toml", "web.toml --prune"),
    "apply": ("web.toml", "web.toml --prune -o json"),
    "inspect": ("web.hvt",),
    "inspect-dump": ("", "--file state.bak -o json"),
    "extract-dump": ("dev:web --file state.bak",),
    "export-dump": ("state.bak --dbdir /var/lib/albatross",),
    "certificate": ("web.pem web.key -d host.example",),
    # programs that are a command of their own
    "albatross-client-remote-tls": ("cacert.pem web.pem web.key host.example:1025",),
    "albatross-client-inspect-dump": ("", "--file state.bak -o json"),
}
PROGRAMS = {
    "albatross-client": ("info", "info -d host.example", "create dev:web web.hvt --csr", "plan web.toml"),
    "albatross-client-local": ("info", "console dev:web", "add-policy dev 4 --mem 512"),
    "albatross-client-bistro": ("info -d host.example", "create web web.hvt --host blue", "update --all --host blue"),
}


def examples(program: str, word: str) -> list[str]:
    """The lines to type for a command, whole."""
    remote = program == REMOTE
    names = {"web": NAME_THERE, "vol": "vol"} if remote else {"web": NAME_HERE, "vol": "dev:vol"}
    alone = program if word == program else f"{program} {word}"
    lines = [f"{alone} {each.format(**names, path='dev')}".rstrip() for each in EXAMPLES.get(word, ())]
    if remote:
        return [f"{line} -d host.example" for line in lines]
    return lines


def explanation(program: str, command: click.Command) -> str:
    """The end of a command's help."""
    word = command.name or ""
    arguments = [each.metavar or "" for each in command.params if isinstance(each, click.Argument)]
    told = [(each, FILES[word] if each == "FILE" else ARGUMENTS[each]) for each in arguments]
    parts = [("POSITIONAL ARGUMENTS", told)] if told else []
    parts += [("ENVIRONMENT", ENVIRONMENT), ("EXIT CODES", exit_codes(word, command))]
    sections = [_section(title, rows) for title, rows in parts]
    lines = examples(program, word)
    return "\n\n".join([*sections, "\n".join(["\b", "EXAMPLES", *(f"  {line}" for line in lines)])])


def program_explanation(program: str) -> str:
    """The end of a program's help."""
    lines = [f"  {program} {each}" for each in PROGRAMS[program]]
    codes = [(str(int(code)), text) for code, text in MEANINGS.items() if code is not ExitCode.HTTP]
    codes.append((str(INTERRUPTED), INTERRUPTION))
    sections = [_section("ENVIRONMENT", ENVIRONMENT), _section("EXIT CODES", codes)]
    return "\n\n".join([*sections, "\n".join(["\b", "EXAMPLES", *lines])])


def exit_codes(word: str, command: click.Command) -> list[tuple[str, str]]:
    """The exit codes that a command has, and what they mean."""
    options = {each.name for each in command.params}
    alone = word in NO_HOST or word.removeprefix("albatross-client-") in NO_HOST
    if alone:
        codes = [ExitCode.OK, ExitCode.USAGE]
    else:
        codes = [*_LOCAL, *(_TLS if "destination" in options else ())]
        codes += [ExitCode.HTTP] if word == "update" else []
    rows = [(int(code), MEANINGS[code]) for code in codes]
    if not alone:
        rows.append((INTERRUPTED, INTERRUPTION))
    if word in SOMETHING_TO_DO:
        rows.append((1, SOMETHING_TO_DO[word]))
    return [(str(code), text) for code, text in sorted(rows)]


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    room = max(len(first) for first, _ in rows)
    return "\n".join(["\b", title, *(f"  {first:<{room}}  {text}" for first, text in rows)])
