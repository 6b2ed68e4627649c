"""``albatross-provision-ca``: the operator's program. Only finds the verb; each is in a module of its own."""

import gc
import importlib

import click

from albatross_pki.console_script import run
from albatross_pki.upstream_words import or_help

_VERBS = {
    "generate": "albatross_pki.ca.cli_sign:generate",
    "sign": "albatross_pki.ca.cli_sign:sign",
    "renew": "albatross_pki.ca.cli_renew:renew",
    "revoke": "albatross_pki.ca.cli_revoke:revoke",
    "crl": "albatross_pki.ca.cli_revoke:crl",
    "list": "albatross_pki.ca.cli_list:list_issued",
    "needs-renewal": "albatross_pki.ca.cli_list:needs_renewal",
    "inspect": "albatross_pki.ca.cli_inspect:inspect",
    "verify": "albatross_pki.ca.cli_verify:verify",
    "ledger": "albatross_pki.ca.cli_ledger:ledger",
    "backup": "albatross_pki.ca.cli_backup:backup",
    "restore": "albatross_pki.ca.cli_backup:restore",
}


class LazyGroup(click.Group):
    """Verbs that are imported when they are called, in the order of the table; ``_`` and ``-`` are the same."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, or_help(ctx, args))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        place = _VERBS.get(cmd_name.replace("_", "-"))
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 done; 124 refused or not understood; 125 a defect of this program.",
)
@click.version_option(package_name="albatross-pki", prog_name="albatross-provision-ca")
def provision_ca() -> None:
    """Sign, revoke and look after certificates that say what may run on a host."""


def main() -> None:
    """Entry point of the console script."""
    gc.disable()  # one verb and the end: looking for cycles in a large ledger costs a third of reading it
    run(provision_ca)
