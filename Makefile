# SPDX-License-Identifier: EPL-2.0

# Postfix has its commands where only root looks for them.
export PATH := $(PATH):/usr/sbin:/sbin

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build demo bench test test-package soak install uninstall deb clean

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

# Where things go. Postfix finds the daemon in a directory of its own below
# daemon_directory, which no package upgrade touches.
PREFIX ?= /usr/local
DAEMON_DIRECTORY ?= $(or $(shell PATH="$(PATH)" postconf -h daemon_directory 2>/dev/null),/usr/lib/postfix/sbin)
DAEMON = $(DESTDIR)$(DAEMON_DIRECTORY)/scache-go
SBIN = $(DESTDIR)$(PREFIX)/sbin
MAN = $(DESTDIR)$(PREFIX)/share/man/man8
BASH = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH = $(DESTDIR)$(PREFIX)/share/zsh/site-functions

# Changes nothing in a running Postfix: that is for "scachectl enable".
install: build
	install -D -m 755 bin/scache $(DAEMON)/scache
	install -D -m 755 bin/scachectl $(SBIN)/scachectl
	install -D -m 644 cmd/scache/scache.8 $(MAN)/scache.8
	install -D -m 644 cmd/scachectl/scachectl.8 $(MAN)/scachectl.8
	install -d $(BASH) $(ZSH)
	bin/scachectl completion bash >$(BASH)/scachectl
	bin/scachectl completion zsh >$(ZSH)/_scachectl

# Switches Postfix back first, if it uses what is to be removed.
uninstall:
	if [ -z "$(DESTDIR)" ] && [ -x $(SBIN)/scachectl ]; then $(SBIN)/scachectl disable --all; fi
	rm -f $(DAEMON)/scache $(SBIN)/scachectl $(MAN)/scache.8 $(MAN)/scachectl.8 $(BASH)/scachectl $(ZSH)/_scachectl
	-rmdir $(DAEMON)

# A Debian package of the same files.
PACKAGE = bin/package
deb:
	rm -rf $(PACKAGE) bin/*.deb
	@$(MAKE) -s install DESTDIR=$(PACKAGE) PREFIX=/usr DAEMON_DIRECTORY=/usr/lib/postfix/sbin
	gzip -9n $(PACKAGE)/usr/share/man/man8/*
	install -D -m 644 LICENSE $(PACKAGE)/usr/share/doc/scache-go/copyright
	install -D -m 755 testdata/package/prerm $(PACKAGE)/DEBIAN/prerm
	sed 's/@VERSION@/$(DEB_VERSION)/; s/@ARCH@/$(shell dpkg --print-architecture)/' testdata/package/control >$(PACKAGE)/DEBIAN/control
	dpkg-deb --root-owner-group --build $(PACKAGE) bin/

# A Debian version begins with a digit, and grows. Without a tag, the date sees to
# that.
DATE := $(shell git log -1 --format=%cd --date=format:%Y%m%d%H%M 2>/dev/null || echo 0)
DEB_VERSION = $(shell echo $(VERSION) | sed 's/^v//; s/^[^0-9]\|^[0-9a-f]*\(-dirty\)*$$/0~$(DATE).&/; s/-/./g')

# Installs and removes the Debian package in a system of its own.
test-package:
	testdata/install debootstrap
	testdata/package/test

clean:
	rm -rf bin
