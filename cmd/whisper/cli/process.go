package cli

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/klivvr/whisper/ops"
)

// A Command is a subcommand with its flags read into its fields. Run does what it is for until it is done or ctx ends,
// which it does at the first signal: an end by a signal is no error.
type Command interface {
	Run(ctx context.Context, p *Process) error
}

// A Checker is a command that can tell what is wrong with its settings before anything is started. Check names every
// problem, each beginning with the name of its setting ("partitions: …").
type Checker interface {
	Check() error
}

// Process is what a command needs of the outside.
type Process struct {
	Stdout, Stderr io.Writer
	Log            *slog.Logger
	Now            func() time.Time

	LogFormat string
	LogLevel  string // as it was given; empty: the command's own default
}

// Logger is for commands whose default level is not info.
func (p *Process) Logger(byDefault slog.Level) *slog.Logger {
	level, err := ops.ParseLevel(p.LogLevel)
	if err != nil {
		level = byDefault
	}
	return ops.NewLogger(p.Stderr, p.LogFormat, level, ops.IsTerminal(Raw(p.Stderr)))
}

// Flatten takes joined errors apart: one line each.
func Flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var flat []error
	for _, e := range joined.Unwrap() {
		flat = append(flat, Flatten(e)...)
	}
	return flat
}

// UnlessStopped drops an error that only says that the process was told to stop meanwhile.
func UnlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a stop is not an error
	}
	return err
}
