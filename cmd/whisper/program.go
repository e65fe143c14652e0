package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/cmd/whisper/roles"
	"github.com/klivvr/whisper/ops"
)

// program is one call of the binary: what it is given and where it prints. Main makes one, and so do tests.
type program struct {
	args, environ  []string
	stdout, stderr io.Writer
}

// Run parses the command line, checks every setting and runs the subcommand until it is done or ctx ends. It returns the
// exit code. What it prints never commands a terminal.
func (p program) Run(ctx context.Context) int {
	stdout, stderr, args := cli.Printable(p.stdout), cli.Printable(p.stderr), p.args
	var c commands
	settings := newSettings(p.environ)
	exited := false
	parser, err := kong.New(
		&c,
		kong.Name("whisper"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }), // --help
		kong.Resolvers(settings),
		kong.PostBuild(settings.collectErrors),
		kong.ExplicitGroups(groups),
		kong.Vars{"log_formats": ops.LogFormats},
		roles.Defaults(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 110}),
	)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "whisper:", err) // the structs above contradict each other
		return exitError
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if args[0] == completeCommand {
		complete(stdout, parser.Model, args[1:])
		return exitOK
	}
	parsed, err := parser.Parse(args)
	if exited {
		return exitOK
	}
	if err != nil {
		return report(stderr, settings, commandName(err), badSettings(settings.errs, err))
	}
	return start(ctx, parsed, &c, settings, stdout, stderr)
}

// start checks all settings of the chosen command, then runs it.
func start(ctx context.Context, parsed *kong.Context, c *commands, settings *settings, stdout, stderr io.Writer) int {
	node := parsed.Selected()
	name := node.FullPath()
	p := &cli.Process{
		Stdout: stdout, Stderr: stderr, Now: time.Now,
		LogFormat: c.LogFormat, LogLevel: c.LogLevel,
	}
	errs := settings.errs
	if c.LogLevel != "" {
		_, err := ops.ParseLevel(c.LogLevel)
		errs = append(errs, err)
	}
	cmd, ok := node.Target.Addr().Interface().(cli.Command)
	if !ok {
		_, _ = fmt.Fprintf(stderr, "whisper: %s has nothing to run\n", name)
		return exitError
	}
	if c, ok := cmd.(cli.Checker); ok {
		errs = append(errs, c.Check())
	}
	errs = append(errs, zeroes(parsed, errs))
	if err := badSettings(errs); err != nil {
		return report(stderr, settings, name, err)
	}
	p.Log = p.Logger(slog.LevelInfo)
	return report(stderr, settings, name, cmd.Run(ctx, p))
}
