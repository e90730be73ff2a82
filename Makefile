# SPDX-License-Identifier: EPL-2.0

# Postfix has its commands where only root looks for them.
export PATH := $(PATH):/usr/sbin:/sbin

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build demo bench test soak clean

build:
	$(GOBUILD) -o bin/ ./cmd/...

# The main job: the same mail without a cache, with the stock one, with ours.
demo:
	@testdata/install postfix
	@$(MAKE) --no-print-directory -s build
	@bin/scachebench --scache bin/scache demo

# Measures this cache beside the stock one, and plots it. It takes some minutes.
bench:
	@testdata/install postfix strace gnuplot-nox
	@$(MAKE) --no-print-directory -s build
	bin/scachebench --json bin/bench.json --csv bin/bench.csv run
	gnuplot -c testdata/bench.gnuplot bin/bench.csv testdata

# All checks and tests. Those against a real Postfix want root.
test:
	@testdata/test

# Hundreds of clients, good and bad, and reloads, for a while.
DURATION ?= 5m
soak:
	@testdata/install gcc libc6-dev
	DURATION=$(DURATION) go test -race -v -count 1 -timeout 24h -run '^TestSoak$$' ./cmd/scache

clean:
	rm -rf bin
