package main

import (
	"errors"
	"fmt"
	"io"

	"culvert/config"
	"culvert/control"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 78 // EX_CONFIG of sysexits.h
)

// usageError is a command line that cannot be understood.
type usageError struct{ text, command string }

func (e *usageError) Error() string { return e.text }

// hintedError is a failure with what to do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() + "\n  hint: " + e.hint }

func (e *hintedError) Unwrap() error { return e.err }

// hint adds what to do to an error; nil stays nil.
func hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintedError{err, fmt.Sprintf(format, args...)}
}

// shownError is a failure whose text the user has already seen.
type shownError struct{ code int }

func (e *shownError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode is the code the process ends with for an error of a command.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[config.Errors](err); ok {
		return exitConfig
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return exitConfig
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if e, ok := errors.AsType[*shownError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e.Code
	}
	return exitFailure
}

// report writes an error the way users see it.
func report(w io.Writer, err error) {
	if err == nil {
		return
	}
	if _, ok := errors.AsType[*shownError](err); ok {
		return
	}
	if exitCode(err) == exitConfig {
		fmt.Fprintln(w, err) // has its own file:line:column
		return
	}
	fmt.Fprintf(w, "culvert: %v\n", err)
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(w, "Run \"%s --help\" for how it is used.\n", u.command)
	}
}
