// SPDX-License-Identifier: EPL-2.0

// Package packaging is what a package holds beside the binaries: how Debian builds and
// installs it, units of systemd, and rules and a dashboard for Prometheus. There is no
// code in it but tests.
package packaging
