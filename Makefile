# make demo     see it work: throwaway PostgreSQL, proxy, page, a short workload
# make test     install what the tests need, run them all
# make check    test, and everything else that holds the code together
# make build    bin/pgnotary

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

# Packages whose goroutines share state: tested with the race detector.
RACE := ./internal/relay/... ./internal/ledger/... ./internal/journal/... ./internal/durable/... \
	./internal/query/... ./internal/web/... ./internal/config/... ./cmd/...

LINT := go tool -modfile=tools.mod golangci-lint

.PHONY: build demo test test-go test-race test-interop test-ui check lint fmt fuzz unit setup clean

build:
	CGO_ENABLED=0 go build -trimpath -o bin/pgnotary ./cmd/pgnotary

demo:
	scripts/setup demo
	@$(MAKE) --no-print-directory build
	@exec bin/pgnotary demo

setup:
	scripts/setup test

test: setup
	@$(MAKE) --no-print-directory test-ui test-race test-go test-interop

test-go:
	go vet ./...
	go test -timeout 60m ./...

test-race:
	GORACE=atexit_sleep_ms=0 go test -race -timeout 60m $(RACE)

# The page's sources, and that internal/web/dist is what they build; internal/e2e has its test in a browser.
test-ui:
	cd ui && npm run --silent check && npm run --silent test && node build.mjs --check

# Foreign verifiers against our log, in a module of their own.
test-interop:
	if [ -f interop/go.mod ]; then cd interop && go test -timeout 40m ./...; fi

check: test lint unit fuzz

lint:
	$(LINT) run ./...

fmt:
	$(LINT) fmt ./...

fuzz:
	scripts/fuzz 10s

# The unit file, if there is a systemd to ask; the program need not be installed for it.
unit:
	@if command -v systemd-analyze >/dev/null; then \
		dir=$$(mktemp -d) && \
		sed 's#/usr/local/bin/pgnotary#/bin/true#' packaging/pgnotary.service >$$dir/pgnotary.service && \
		systemd-analyze verify $$dir/pgnotary.service && \
		systemd-analyze security --offline=true --threshold=20 $$dir/pgnotary.service | tail -n 1; \
		code=$$?; rm -rf $$dir; exit $$code; \
	else echo "unit: no systemd-analyze here"; fi

clean:
	rm -rf bin
