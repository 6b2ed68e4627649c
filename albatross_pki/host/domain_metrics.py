"""What is allowed and used below each path, as albatrossd's own metrics tell it.

``DomainMetrics`` is pure; ``metrics_of`` takes the figures from a supervisor.

A domain is a path; the root is ``:``. Counts include everything below. ``albatross-policies`` has the policies that are
set, ``albatross-unikernels`` what is in use (Albatross 2.7.2).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from albatross_pki.host.own_metrics import MAX_DOMAINS, Domains, Figures, OwnMetrics
from albatross_pki.host.supervisor import Supervisor
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.tree import ResourceTree
from albatross_pki.transport.channel import Served

PROGRAM = "albatross"


class DomainMetrics:
    """Lines for everything that a host has, within ``MAX_DOMAINS`` paths."""

    def __init__(self) -> None:
        self._policies = Domains("albatross-policies")
        self._unikernels = Domains("albatross-unikernels")

    def lines(
        self,
        policies: Iterable[tuple[Path, Policy]],
        tree: ResourceTree,
        running: Iterable[Name],
        blocks: Mapping[Name, int],
        attached: Collection[Name],
    ) -> Iterator[str]:
        """``blocks`` have their sizes in MB; ``attached`` are those that a running unikernel uses."""
        allowed = sorted(policies, key=lambda each: (len(each[0].labels), each[0].labels))[:MAX_DOMAINS]
        yield from self._policies.lines(PROGRAM, ((_domain(path), _allowed(policy)) for path, policy in allowed))
        counted = Counter(path for name in running for path in name.path.ancestors())
        used = Counter[Path]()
        for name in attached:
            for path in name.path.ancestors():
                used[path] += blocks.get(name, 0)
        paths = sorted(tree.paths(), key=lambda path: (len(path.labels), path.labels))[:MAX_DOMAINS]
        figures = ((_domain(path), _in_use(path, tree, counted, used)) for path in paths)
        yield from self._unikernels.lines(PROGRAM, figures)


def metrics_of(supervisor: Supervisor, address: tuple[str, int], served: Served) -> OwnMetrics:
    """The own metrics of albatrossd."""
    domains = DomainMetrics()

    def extra() -> Iterator[str]:
        blocks = supervisor.host.blocks
        return domains.lines(
            supervisor.book.operator.items(),
            supervisor.tree,
            [each.name for each in supervisor.table.values() if each.running is not None],
            blocks.devices,
            [name for name in blocks.devices if blocks.in_use(name)],
        )

    return OwnMetrics(PROGRAM, address, {"unix": served}, extra)


def _domain(path: Path) -> str:
    return str(path) or ":"


def _allowed(policy: Policy) -> Figures:
    return {
        "maximum unikernels": policy.unikernels,
        "maximum memory": policy.memory_mb,
        "maximum block": policy.block_mb or 0,
    }


def _in_use(path: Path, tree: ResourceTree, running: Mapping[Path, int], attached: Mapping[Path, int]) -> Figures:
    usage, in_use = tree.usage(path), attached.get(path, 0)
    return {
        "attached used block": in_use,
        "unattached used block": usage.block_mb - in_use,
        "total used block": usage.block_mb,
        "running unikernels": running.get(path, 0),
        "used memory": usage.memory_mb,
    }
