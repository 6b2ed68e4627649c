#!/bin/sh

# Users and groups of a host on FreeBSD: pw(8). A second time changes nothing. Not tried on FreeBSD.
# People are given albatross (may do everything) and albatross-watch (may read what machines print and use).

set -eu

for group in albatross albatross-watch albatross-daemons; do
    pw groupshow "${group}" >/dev/null 2>&1 || pw groupadd "${group}"
done

for user in console stats influx authorise tls; do
    pw usershow "albatross-${user}" >/dev/null 2>&1 ||
        pw useradd "albatross-${user}" -d /nonexistent -s /usr/sbin/nologin -c "Albatross ${user}"
done

pw groupmod albatross-daemons -m albatross-console,albatross-stats,albatross-authorise
pw groupmod albatross-watch -m albatross-authorise
