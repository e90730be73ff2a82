// SPDX-License-Identifier: EPL-2.0

// Package packaging holds the files that a package has beside the binaries. They are: how
// Debian and RPM build and install it, systemd units, rules and a dashboard for Prometheus;
// rules for log analysers, profiles for AppArmor and SELinux, an example of a container image.
// It has no code except tests.
package packaging
