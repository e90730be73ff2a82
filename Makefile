# SPDX-License-Identifier: EPL-2.0

# Postfix has its commands where only root looks for them.
export PATH := $(PATH):/usr/sbin:/sbin

# Version and date are those of the changelog, and nothing else of the place or time
# of the build gets into what is built.
DEBIAN = internal/packaging/debian
VERSION = $(shell sed -n '1s/.*(\(.*\)).*/\1/p' $(DEBIAN)/changelog)
DATE = $(shell LC_ALL=C date -u -d "$$(sed -n 's/^ -- .*>  //p' $(DEBIAN)/changelog | head -n 1)" '+%B %-d, %Y')
GOBUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION) -X main.libexec=$(LIBEXEC)'

.PHONY: build demo bench test test-package test-versions record soak faults fuzz mutants cover dist install install-files uninstall deb clean

build:
	$(GOBUILD) -o bin/ ./cmd/...

# The main job: the same mail without a cache, with the stock one, with ours.
demo:
	@.ci/install postfix
	@$(MAKE) --no-print-directory -s build
	@bin/scachebench --scache bin/scache demo

# Measures this cache beside the stock one, and plots it. It takes some minutes.
bench:
	@.ci/install postfix strace gnuplot-nox
	@$(MAKE) --no-print-directory -s build
	bin/scachebench --json bin/bench.json --csv bin/bench.csv run
	gnuplot -c cmd/scachebench/plot.gnuplot bin/bench.csv cmd/scachebench

# All checks and tests. Those against a real Postfix want root.
test:
	@.ci/test

# Hundreds of clients, good and bad, and reloads, for a while.
DURATION ?= 5m
soak:
	@.ci/install gcc libc6-dev
	DURATION=$(DURATION) go test -race -v -count 1 -timeout 24h -run '^TestSoak$$' ./cmd/scache

# Each system call of a reload fails, one after another, for some minutes. "make test"
# takes a sample of them. FAULTS=KIND:ERRNO:N is one of them alone.
FAULTS ?= all
faults:
	@.ci/install postfix gcc libc6-dev
	FAULTS=$(FAULTS) go test -race -count 1 -timeout 2h -run '^TestHandover_oneCallFails$$' ./cmd/scache

# All fuzz targets, each for a while.
fuzz: DURATION = 30s
fuzz:
	.ci/fuzz $(DURATION)

# Changes the code of one package in small ways, and lists the changes that its tests do not
# notice. Survivors that behave the same are listed at the head of the package's tests.
# Example: make mutants PKG=internal/cache
GREMLINS = github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0
mutants:
	nice go run $(GREMLINS) unleash --timeout-coefficient 10 --threshold-efficacy 90 ./$(PKG)

# What the tests cover, by package.
cover:
	.ci/cover

# A release: source, binaries, packages, a bill of materials, checksums.
dist:
	.ci/dist

# Where things go. The server has a directory of its own, outside those of Postfix:
# "scachectl enable" names it in master.cf.
PREFIX ?= /usr/local
LIBEXEC = $(PREFIX)/libexec/scache-go
SBIN = $(DESTDIR)$(PREFIX)/sbin
BIN = $(DESTDIR)$(PREFIX)/bin
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
DOC = $(DESTDIR)$(PREFIX)/share/doc/scache-go
MAN = $(DESTDIR)$(PREFIX)/share/man/man8
BASH = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH = $(DESTDIR)$(PREFIX)/share/zsh/$(ZSH_FUNCTIONS)
ZSH_FUNCTIONS ?= site-functions

# Changes nothing in a running Postfix: that is for "scachectl enable".
install: build install-files

install-files:
	install -D -m 755 bin/scache $(DESTDIR)$(LIBEXEC)/scache
	install -D -m 755 bin/scachectl $(SBIN)/scachectl
	install -D -m 755 bin/scache_exporter $(BIN)/scache_exporter
	install -d -m 755 $(MAN) $(BASH) $(ZSH) $(UNITS) $(DOC)/prometheus
	for page in cmd/*/*.8; do \
		sed 's/^\.Dd .*/.Dd $(DATE)/' $$page >bin/page && install -m 644 bin/page $(MAN)/$${page##*/} || exit; \
	done
	install -m 644 internal/packaging/prometheus/rules.yml internal/packaging/prometheus/dashboard.json $(DOC)/prometheus
	for unit in internal/packaging/systemd/*; do \
		sed 's#/usr/bin/#$(PREFIX)/bin/#' $$unit >bin/unit && install -m 644 bin/unit $(UNITS)/$${unit##*/} || exit; \
	done
	GOARCH= go run ./cmd/scachectl completion bash >bin/completion.bash
	GOARCH= go run ./cmd/scachectl completion zsh >bin/completion.zsh
	install -m 644 bin/completion.bash $(BASH)/scachectl
	install -m 644 bin/completion.zsh $(ZSH)/_scachectl

# Switches Postfix back first, if it uses what is to be removed.
uninstall:
	if [ -z "$(DESTDIR)" ] && [ -x $(SBIN)/scachectl ]; then $(SBIN)/scachectl disable --all; fi
	-if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl -q disable --now $(notdir $(wildcard internal/packaging/systemd/*)); fi
	rm -f $(DESTDIR)$(LIBEXEC)/scache $(SBIN)/scachectl $(BIN)/scache_exporter $(BASH)/scachectl $(ZSH)/_scachectl
	rm -f $(MAN)/scache-go.8 $(MAN)/scachectl.8 $(MAN)/scache_exporter.8 $(UNITS)/scache-exporter*
	rm -rf $(DOC)/prometheus
	-rmdir $(DESTDIR)$(LIBEXEC) $(DOC)

# A Debian package of the same files, built by Debian's own tools in a copy.
# DEB_FLAGS are for dpkg-buildpackage.
PACKAGE = bin/package/scache-go
deb:
	@.ci/install dpkg-dev debhelper
	rm -rf bin/package bin/*.deb
	mkdir -p $(PACKAGE)
	tar -c --exclude=./bin --exclude=./.git . | tar -x -C $(PACKAGE)
	sed -i '1s/(.*)/($(VERSION))/' $(PACKAGE)/$(DEBIAN)/changelog
	cp -R $(PACKAGE)/$(DEBIAN) $(PACKAGE)/debian
	sed 's/^$$/./; s/^/ /' LICENSE >>$(PACKAGE)/debian/copyright
	cd $(PACKAGE) && GOPATH=$$(go env GOPATH) GOCACHE=$$(go env GOCACHE) dpkg-buildpackage --build=binary --no-sign --no-check-builddeps $(DEB_FLAGS)
	mv bin/package/*.deb bin/
	rm -rf bin/package

# The Debian package and real mail in Debian systems of their own, with all that may
# happen to both: see .ci/versions.d/story. "make test" takes the suite of this machine,
# and the one in which the package of Postfix has other files.
test-package: SUITES ?= $(sort $(shell . /etc/os-release && echo $$VERSION_CODENAME) trixie)
test-versions: SUITES ?= bullseye bookworm trixie sid
test-package test-versions:
	.ci/versions $(SUITES)

# Writes down again what Postfix of these suites says, and how its stock server
# answers, for tests to play. It wants root.
record: SUITES ?= bullseye bookworm trixie sid
record:
	.ci/record $(SUITES)

clean:
	rm -rf --one-file-system bin
