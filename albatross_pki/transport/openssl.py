"""The three things that OpenSSL can and Python's ``ssl`` does not offer everywhere, each behind a guard.

* ``verified_chain``: the path that OpenSSL built; public from Python 3.13 on, behind ``_sslobj`` before.
* ``presented_chain``: what the peer sent, in its order.
* ``raise_certificate_list_limit``: OpenSSL takes a peer's certificate message of at most 102,400 octets and *allocates
  what the peer claims* (SSL_CTX_set_max_cert_list(3)). A leaf with a unikernel's image in it is larger. The limit is
  set with ``ctypes`` on the very libssl that ``_ssl`` uses, per context or per connection, in steps that each can say
  no: 1. CPython without reference tracing; 2. the symbols are reachable from ``_ssl``; 3. where our pointer should
  lie, the object beside it is the one that we know; 4. reading the limit gives OpenSSL's default. If any of them says
  no, the limit stays and the caller learns it: such certificates are then refused, and streaming the image still works.
"""

import ssl
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ctypes

DEFAULT_CERTIFICATE_LIST_LIMIT = 102_400  # octets, ssl.h: SSL_MAX_CERT_LIST_DEFAULT
_GET_LIMIT, _SET_LIMIT = 50, 51  # ssl.h: SSL_CTRL_GET_MAX_CERT_LIST, SSL_CTRL_SET_MAX_CERT_LIST
_POINTER = tuple.__itemsize__  # octets
IGNORE_CRITICAL = 0x10  # x509_vfy.h: X509_V_FLAG_IGNORE_CRITICAL


def verified_chain(connection: ssl.SSLObject) -> list[bytes]:
    """The verified path as DER, leaf first, the trust anchor last; empty if the peer was not verified."""
    return _chain(connection, "get_verified_chain")


def presented_chain(connection: ssl.SSLObject) -> list[bytes]:
    """The certificates that the peer sent, as DER, in its order, leaf first."""
    return _chain(connection, "get_unverified_chain")


def _chain(connection: Any, method: str) -> list[bytes]:
    if hasattr(connection, method):
        return list(getattr(connection, method)())
    certificates = getattr(connection._sslobj, method)() or ()
    return [certificate.public_bytes(_der_encoding()) for certificate in certificates]


@lru_cache(maxsize=1)
def _der_encoding() -> int:
    import _ssl

    return int(_ssl.ENCODING_DER)


def raise_certificate_list_limit(subject: ssl.SSLContext | ssl.SSLObject, octets: int) -> bool:
    """Let the peers of a context (or one connection's) send certificate lists of up to ``octets``.

    Returns whether it could be done; if not, the limit stays OpenSSL's default.
    """
    library = _library()
    if library is None:
        return False
    if isinstance(subject, ssl.SSLContext):
        pointer, control = _context_pointer(library, subject), library.SSL_CTX_ctrl
    else:
        pointer, control = _connection_pointer(library, subject), library.SSL_ctrl
    if pointer is None or control(pointer, _GET_LIMIT, 0, None) <= 0:
        return False
    control(pointer, _SET_LIMIT, octets, None)
    return bool(control(pointer, _GET_LIMIT, 0, None) == octets)


@lru_cache(maxsize=1)
def _library() -> "ctypes.CDLL | None":
    if sys.implementation.name != "cpython" or hasattr(sys, "getobjects"):
        return None
    import ctypes  # clients load it only for certificates with images

    try:
        import _ssl

        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        for name in ("SSL_CTX_ctrl", "SSL_ctrl"):
            function = getattr(library, name)
            function.restype = ctypes.c_long
            function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        library.SSL_get_SSL_CTX.restype = ctypes.c_void_p
        library.SSL_get_SSL_CTX.argtypes = [ctypes.c_void_p]
    except (ImportError, OSError, AttributeError):
        return None
    fresh = _context_pointer(library, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    if fresh is None or library.SSL_CTX_ctrl(fresh, _GET_LIMIT, 0, None) != DEFAULT_CERTIFICATE_LIST_LIMIT:
        return None
    return library


def _context_pointer(library: "ctypes.CDLL", context: ssl.SSLContext) -> int | None:
    """The SSL_CTX is the first field after the object's head; a connection made from it must name the same one."""
    candidate = _word(context, 0)
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=_serves(context))
    inside = _inner_pointer(connection, context)
    if inside is None or library.SSL_get_SSL_CTX(inside) != candidate:
        return None
    return candidate


def _connection_pointer(library: "ctypes.CDLL", connection: ssl.SSLObject) -> int | None:
    context = connection.context
    inside = _inner_pointer(connection, context)
    if inside is None or library.SSL_get_SSL_CTX(inside) != _word(context, 0):
        return None
    return inside


def _inner_pointer(connection: ssl.SSLObject, context: ssl.SSLContext) -> int | None:
    """The fields are: a socket (none for us), the SSL, the context object. The last one tells us we are right."""
    inner = getattr(connection, "_sslobj", None)
    if inner is None or type(inner).__basicsize__ < object.__basicsize__ + 3 * _POINTER:
        return None
    no_socket, pointer, owner = (_word(inner, index) for index in range(3))
    return pointer if not no_socket and owner == id(context) else None


def _word(thing: object, index: int) -> int | None:
    import ctypes

    return ctypes.c_void_p.from_address(id(thing) + object.__basicsize__ + index * _POINTER).value


def _serves(context: ssl.SSLContext) -> bool:
    return context.protocol == ssl.PROTOCOL_TLS_SERVER
