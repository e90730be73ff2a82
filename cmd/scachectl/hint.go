// SPDX-License-Identifier: EPL-2.0

// How errors are printed: the error, and hints on separate lines.

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// A hinted error has hints about what to do.
type hinted struct {
	error
	hints []string
}

func (h *hinted) Unwrap() error { return h.error }

// hintError returns an error that is printed with lines "hint: …" below it.
func hintError(err error, hints ...string) error { return &hinted{err, hints} }

// A usageError is an error in the arguments: the exit code is 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// printError prints an error, and the hints of all errors that it wraps, each once.
func printError(w io.Writer, err error) {
	fmt.Fprintln(w, "scachectl:", err)
	var printed []string
	for _, hint := range hintsOf(err) {
		if !slices.Contains(printed, hint) {
			fmt.Fprintln(w, "hint:", hint)
			printed = append(printed, hint)
		}
	}
}

func hintsOf(err error) (hints []string) {
	if h, ok := err.(*hinted); ok {
		hints = h.hints
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		return append(hints, hintsOf(err.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, one := range err.Unwrap() {
			hints = append(hints, hintsOf(one)...)
		}
	}
	return hints
}

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	switch _, usage := errors.AsType[usageError](err); {
	case err == nil:
		return 0
	case usage:
		return exitUsage
	}
	return exitFailure
}
