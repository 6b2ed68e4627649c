"""What the one who asks may do: everything, for the operator on the local socket, or what a chain allows.

``check_deployment`` decides, in this order, whether a configuration and its image may run: the image's digest among
the permitted ones; the deployment's digest among the permitted ones; the image the one that the leaf was signed for.
All violations are found. It holds for every way to make an image run.
"""

from dataclasses import dataclass, field
from datetime import datetime

from albatross_pki.authorised import AuthorisedRequest, ChainPolicy
from albatross_pki.errors import Refused
from albatross_pki.extensions import ImageBinding
from albatross_pki.host.events_kinds import By
from albatross_pki.host.records import Deployment
from albatross_pki.names import Path
from albatross_pki.wire.configuration import deployment_digest


@dataclass(frozen=True, slots=True)
class Rights:
    """``policies`` of the chain; ``images`` and ``deployments`` that may run (``None``: any).

    ``top`` is the path of the request's top-level delegation: a digest without content is looked for below it alone.
    ``by`` is who asks, for the record.
    """

    policies: tuple[ChainPolicy, ...] = ()
    images: frozenset[bytes] | None = None
    deployments: frozenset[bytes] | None = None
    binding: ImageBinding | None = None
    top: Path = field(default_factory=Path)
    not_after: datetime | None = None
    operator: bool = True
    by: By = None

    @classmethod
    def of(cls, request: AuthorisedRequest) -> "Rights":
        """The rights that an authorised request brings."""
        return cls(
            policies=request.policies,
            images=request.images,
            deployments=request.deployments,
            binding=request.binding,
            top=Path(request.name.path.labels[:1]),
            not_after=request.not_after,
            operator=False,
            by=request.leaf,
        )


OPERATOR = Rights()


def check_deployment(rights: Rights, deployment: Deployment) -> None:
    """Raise ``Refused`` with every reason why ``deployment`` may not be made to run."""
    reasons = []
    if rights.images is not None and deployment.image not in rights.images:
        reasons.append(f"the image {deployment.image.hex()} is not among those that the certificates permit")
    if rights.deployments is not None:
        digest = deployment_digest(deployment.config(), deployment.image)
        if digest not in rights.deployments:
            reasons.append(f"the deployment {digest.hex()} is not among those that the certificates permit")
    if rights.binding is not None and deployment.image != rights.binding.digest:
        reasons.append(f"the image {deployment.image.hex()} is not the one that was signed")
    if reasons:
        raise Refused(reasons)
