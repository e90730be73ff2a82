# SPDX-License-Identifier: EPL-2.0

# The commands of Postfix are only on the path of root.
export PATH := $(PATH):/usr/sbin:/sbin

# Version and date come from the changelog. Nothing else of the place or time of the build
# gets into what is built.
DEBIAN = internal/packaging/debian
VERSION = $(shell sed -n '1s/.*(\(.*\)).*/\1/p' $(DEBIAN)/changelog)
CHANGED = sed -n 's/^ -- .*>  //p' $(DEBIAN)/changelog | head -n 1
DATE = $(shell LC_ALL=C date -u -d "$$($(CHANGED))" '+%B %-d, %Y')
GOBUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	-ldflags '-s -w -X main.version=$(VERSION) -X main.libexec=$(LIBEXEC)'

.PHONY: build demo bench pictures check test test-package test-versions test-rpm test-container \
	record soak faults fuzz mutants cover dist install install-files uninstall \
	selinux install-selinux deb rpm clean

build:
	$(GOBUILD) -o bin/ ./cmd/...

# The same mail without a cache, with the stock one, and with ours.
demo:
	@.ci/install postfix
	@$(MAKE) --no-print-directory -s build
	@bin/scachebench --scache bin/scache demo

# Measures this cache and the stock one, and plots the results. It takes some minutes.
bench:
	@.ci/install postfix strace gnuplot-nox
	@$(MAKE) --no-print-directory -s build
	bin/scachebench --json bin/bench.json --csv bin/bench.csv run
	gnuplot -c cmd/scachebench/plot.gnuplot bin/bench.csv cmd/scachebench

# The pictures in the documents: of scachectl top, with mail of its own, and of the demo's
# table, if bin/demo.txt has its output: make demo | tee bin/demo.txt
pictures:
	@.ci/install postfix tmux iproute2
	@$(MAKE) --no-print-directory -s build
	bin/scachebench picture top >bin/top.svg
	mv bin/top.svg cmd/scachectl/top.svg
	if [ -e bin/demo.txt ]; then \
		bin/scachebench picture demo <bin/demo.txt >cmd/scachebench/demo.svg; \
	fi

# What can be checked without root, network and Postfix, in less than a minute.
check:
	@.ci/check

# All checks and tests. Those against a real Postfix must be run as root.
test:
	@.ci/test

# Hundreds of clients, good and bad, and reloads, for DURATION.
DURATION ?= 5m
soak:
	@.ci/install gcc libc6-dev
	DURATION=$(DURATION) go test -race -v -count 1 -timeout 24h -run '^TestSoak$$' ./cmd/scache

# Makes each system call of a reload fail, one after another, for some minutes. "make test"
# takes a sample of them. FAULTS=KIND:ERRNO:N is one of them alone.
FAULTS ?= all
faults:
	@.ci/install postfix gcc libc6-dev
	FAULTS=$(FAULTS) go test -race -count 1 -timeout 2h \
		-run '^TestHandover_oneCallFails$$' ./cmd/scache

# All fuzz targets, for DURATION each.
fuzz: DURATION = 30s
fuzz:
	.ci/fuzz $(DURATION)

# Changes the code of one package in small ways, and lists the changes that its tests do not
# notice. Survivors that behave the same are listed at the head of the package's tests.
# The tests are those of the short mode. Example: make mutants PKG=internal/cache
GREMLINS = github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0
mutants:
	GOFLAGS="$$(go env GOFLAGS) -short" nice go run $(GREMLINS) unleash --workers 1 \
		--timeout-coefficient 10 --threshold-efficacy 90 ./$(PKG)

# The coverage of the tests, by package.
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
# For this machine, even if the binaries are for another one.
COMPLETION = GOARCH= CGO_ENABLED=0 go run -trimpath -buildvcs=false ./cmd/scachectl completion
POLICIES = $(DESTDIR)$(PREFIX)/share/selinux/packages

# Units and examples are installed from these directories, by the same names. Paths in them
# are those of PREFIX=/usr.
PACKAGING = internal/packaging
unit_kinds = *.service *.socket *.d/*
example_dirs = apparmor log prometheus receivers selinux
UNIT_FILES = $(patsubst $(PACKAGING)/systemd/%,%,\
	$(wildcard $(unit_kinds:%=$(PACKAGING)/systemd/%)))
EXAMPLES = $(patsubst $(PACKAGING)/%,%,\
	$(filter-out %_test.yml,$(wildcard $(example_dirs:%=$(PACKAGING)/%/*))))
moved = bin\|libexec\|share/doc\|share/selinux/packages
relocate = sed 's!/usr/\($(moved)\)/scache!$(PREFIX)/\1/scache!g'

# Changes nothing in a running Postfix: "scachectl enable" does that.
install: build install-files

install-files:
	install -D -m 755 bin/scache $(DESTDIR)$(LIBEXEC)/scache
	install -D -m 755 bin/scachectl $(SBIN)/scachectl
	install -D -m 755 bin/scache_exporter $(BIN)/scache_exporter
	install -d -m 755 $(MAN) $(BASH) $(ZSH)
	for page in cmd/*/*.8; do \
		sed 's/^\.Dd .*/.Dd $(DATE)/' $$page >bin/page && \
			install -m 644 bin/page $(MAN)/$${page##*/} || exit; \
	done
	for file in $(EXAMPLES); do \
		$(relocate) $(PACKAGING)/$$file >bin/file && \
			install -D -m 644 bin/file $(DOC)/$$file || exit; \
	done
	for unit in $(UNIT_FILES); do \
		$(relocate) $(PACKAGING)/systemd/$$unit >bin/file && \
			install -D -m 644 bin/file $(UNITS)/$$unit || exit; \
	done
	$(COMPLETION) bash >bin/completion.bash
	$(COMPLETION) zsh >bin/completion.zsh
	install -m 644 bin/completion.bash $(BASH)/scachectl
	install -m 644 bin/completion.zsh $(ZSH)/_scachectl

# The SELinux module. Version 17 of the format is understood from RHEL 7 on.
selinux:
	$(relocate) $(PACKAGING)/selinux/scache-go.fc >bin/scache-go.fc
	checkmodule -M -m -c 17 -o bin/scache-go.mod $(PACKAGING)/selinux/scache-go.te
	semodule_package -o bin/scache-go.pp -m bin/scache-go.mod -f bin/scache-go.fc

install-selinux:
	install -D -m 644 bin/scache-go.pp $(POLICIES)/scache-go.pp

# Switches Postfix back first, where it uses this server.
uninstall:
	if [ -z "$(DESTDIR)" ] && [ -x $(SBIN)/scachectl ]; then $(SBIN)/scachectl disable --all; fi
	-if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl -q disable --now $(filter %.service %.socket,$(UNIT_FILES)); \
	fi
	rm -f $(DESTDIR)$(LIBEXEC)/scache $(SBIN)/scachectl $(BIN)/scache_exporter
	rm -f $(BASH)/scachectl $(ZSH)/_scachectl
	rm -f $(MAN)/scache-go.8 $(MAN)/scachectl.8 $(MAN)/scache_exporter.8
	rm -f $(addprefix $(UNITS)/,$(UNIT_FILES)) $(POLICIES)/scache-go.pp
	rm -f $(addprefix $(DOC)/,$(EXAMPLES))
	-for dir in $(LIBEXEC:%=$(DESTDIR)%) $(UNITS)/scache-.service.d \
		$(sort $(dir $(addprefix $(DOC)/,$(EXAMPLES)))) $(DOC); do \
		[ ! -d $$dir ] || rmdir $$dir; \
	done

# Packages of the same files. Each is built by the distribution's own tools, in a copy of
# the source. DEB_FLAGS are for dpkg-buildpackage, RPM_FLAGS for rpmbuild.
copy = mkdir -p $(1) && tar -c --exclude=./bin --exclude=./.git . | tar -x -C $(1)
gopaths = GOPATH=$$(go env GOPATH) GOCACHE=$$(go env GOCACHE)

SOURCE = bin/package/scache-go
deb:
	@.ci/install dpkg-dev debhelper
	rm -rf bin/package bin/*.deb
	$(call copy,$(SOURCE))
	sed -i '1s/(.*)/($(VERSION))/' $(SOURCE)/$(DEBIAN)/changelog
	cp -R $(SOURCE)/$(DEBIAN) $(SOURCE)/debian
	cp $(SOURCE)/$(PACKAGING)/log/scache.logcheck $(SOURCE)/debian/scache-go.logcheck.ignore.server
	sed 's/^$$/./; s/^/ /' LICENSE >>$(SOURCE)/debian/copyright
	cd $(SOURCE) && $(gopaths) dpkg-buildpackage --build=binary --no-sign \
		--no-check-builddeps $(DEB_FLAGS)
	mv bin/package/*.deb bin/
	rm -rf bin/package

rpm:
	@.ci/install rpm checkpolicy semodule-utils
	rm -rf bin/rpm bin/*.rpm
	$(call copy,bin/rpm/source)
	sed 's/@VERSION@/$(VERSION)/' $(PACKAGING)/rpm/scache-go.spec >bin/rpm/scache-go.spec
	$(PACKAGING)/rpm/changelog $(DEBIAN)/changelog >>bin/rpm/scache-go.spec
	cd bin/rpm/source && $(gopaths) rpmbuild -bb --build-in-place \
		--define '_topdir $(CURDIR)/bin/rpm' $(RPM_FLAGS) ../scache-go.spec
	mv bin/rpm/RPMS/*/*.rpm bin/
	rm -rf bin/rpm

# Tests the Debian package with real mail in Debian systems of their own: see
# .ci/versions.d/story. "make test" takes the suite of this machine, and trixie, where the
# package of Postfix has other files.
test-package: SUITES ?= $(sort $(shell . /etc/os-release && echo $$VERSION_CODENAME) trixie)
test-versions: SUITES ?= bullseye bookworm trixie sid
test-package test-versions:
	.ci/versions $(SUITES)

# Tests the RPM in a system of its own: see .ci/versions.d/rpm. It must be run as root.
test-rpm:
	.ci/rpm

# Tests the container image: see .ci/container. It must be run as root.
test-container:
	.ci/container

# Records again the conversations between clients and stock server of these suites, which
# tests replay. It must be run as root.
record: SUITES ?= bullseye bookworm trixie sid
record:
	.ci/record $(SUITES)

clean:
	rm -rf --one-file-system bin
