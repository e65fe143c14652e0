package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

// usageError is a wrong setting; it ends with exit code 2.
type usageError struct{ errs []error }

func (e *usageError) Error() string { return errors.Join(e.errs...).Error() }

func (e *usageError) Unwrap() []error { return e.errs }

// badSettings gathers complaints, or is nil.
func badSettings(errs []error, more ...error) error {
	var flat []error
	for _, err := range append(errs, more...) {
		flat = append(flat, cli.Flatten(err)...)
	}
	if len(flat) == 0 {
		return nil
	}
	return &usageError{flat}
}

// report says on w why a command ended and gives the exit code.
func report(w io.Writer, settings *settings, name string, err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &usage):
		_, _ = fmt.Fprintf(w, "%s: %s\n", name, cli.DistinctLines(err.Error()))
		return exitError
	case len(usage.errs) == 1:
		_, _ = fmt.Fprintf(w, "%s: %s\n", name, settings.explain(usage.errs[0]))
	default:
		_, _ = fmt.Fprintf(w, "%s: %d settings are wrong:\n", name, len(usage.errs))
		for _, e := range usage.errs {
			_, _ = fmt.Fprintf(w, "  %s\n", settings.explain(e))
		}
	}
	_, _ = fmt.Fprintf(w, "`%s --help` lists the settings.\n", name)
	return exitUsage
}

// commandName is the command that a parse error speaks of, as far as parsing came.
func commandName(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return node.FullPath()
		}
	}
	return "whisper"
}

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)
