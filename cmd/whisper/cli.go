package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/ops"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// cli is the command line: one field a subcommand, in the order of the help.
type cli struct {
	Config    string `help:"Read settings from this YAML or JSON file; its keys are the names of flags." placeholder:"FILE" group:"general"`
	LogFormat string `help:"How to write logs: auto is text on a terminal, JSON elsewhere." enum:"${log_formats}" default:"auto" placeholder:"auto|text|json" group:"general"`
	LogLevel  string `help:"Least level to log: debug, info, warn or error (default info; warn for dev and the tools)." placeholder:"LEVEL" group:"general"`

	Dev devCmd `cmd:"" group:"everything" help:"Run everything in one process, with nothing installed."`

	Intake   intakeCmd   `cmd:"" group:"roles" help:"Take requests and profiles from upstream."`
	Dispatch dispatchCmd `cmd:"" group:"roles" help:"Decide what is sent when, and over which channel."`
	Gateway  gatewayCmd  `cmd:"" group:"roles" help:"Hold clients' sockets."`
	Push     pushCmd     `cmd:"" group:"roles" help:"Hand notifications to push providers (APNs)."`
	Project  projectCmd  `cmd:"" group:"roles" help:"Fold facts into Postgres, and answer /v1/health."`

	Topics topicsCmd `cmd:"" group:"setup" help:"Show or make the Kafka topics that Whisper needs."`

	Categories categoriesCmd `cmd:"" group:"setup" help:"Declare what may be sent how often, and when."`

	Migrate migrateCmd `cmd:"" group:"setup" help:"Bring the Postgres schema up to date."`

	Send        sendCmd        `cmd:"" group:"people" help:"Ask for a notification, or cancel one."`
	Listen      listenCmd      `cmd:"" group:"people" help:"Connect as a user and print what arrives."`
	Token       tokenCmd       `cmd:"" group:"people" help:"Print a token for a client's socket."`
	Templates   templatesCmd   `cmd:"" group:"people" help:"Check, apply, preview, list or show the texts of notifications."`
	Revoke      revokeCmd      `cmd:"" group:"people" help:"Close a user's sockets, and refuse the tokens that opened them."`
	Profile     profileCmd     `cmd:"" group:"people" help:"Change a user's profile, or forget the user."`
	Events      eventsCmd      `cmd:"" group:"people" help:"Print the facts about deliveries."`
	Broadcasts  broadcastsCmd  `cmd:"" group:"people" help:"List, show, watch or steer broadcasts."`
	Deliveries  deliveriesCmd  `cmd:"" group:"people" help:"List or show deliveries, as Postgres has them."`
	Deadletters deadlettersCmd `cmd:"" group:"people" help:"List, show or redrive what a role could not use."`
	Nodes       nodesCmd       `cmd:"" group:"people" help:"List the gateways: their load, and who drains or is silent."`
	Sessions    sessionsCmd    `cmd:"" group:"people" help:"List the open sockets of gateways: whose, since when, with what."`
	Health      healthCmd      `cmd:"" group:"people" help:"Ask a running Whisper how it is."`

	Bench benchCmd `cmd:"" group:"measure" help:"Measure Whisper on this machine."`

	ApnsSimulator apnsSimulatorCmd `cmd:"" group:"other" help:"Play Apple's push service."`
	Completion    completionCmd    `cmd:"" group:"other" help:"Print the completion script of a shell."`
	Version       versionCmd       `cmd:"" group:"other" help:"Print the version."`
}

var groups = []kong.Group{
	{Key: "everything", Title: "Everything in one process:"},
	{Key: "roles", Title: "Roles (start more of one to scale it):"},
	{Key: "setup", Title: "Before the roles start:"},
	{Key: "people", Title: "Using and watching it:"},
	{Key: "measure", Title: "Measuring it:"},
	{Key: "other", Title: "Other:"},
	{Key: "general", Title: "General:"},
	{Key: "dev", Title: "Embedded servers:"},
	{Key: "sockets", Title: "Sockets:"},
	{Key: "auth", Title: "Tokens of clients:"},
	{Key: "policy", Title: "Policy (the same for every dispatch):"},
	{Key: "push", Title: "Push:"},
	{Key: "apns", Title: "APNs:"},
	{Key: "project", Title: "Projections:"},
	{Key: "health", Title: "What /v1/health calls degraded:"},
	{Key: "kafka", Title: "Kafka:"},
	{Key: "topics", Title: "Topics (the same for every role of a cluster):"},
	{Key: "postgres", Title: "Postgres:"},
	{Key: "ops", Title: "Operations:"},
}

const description = `Whisper delivers notifications: a Kafka record in, a notification on a socket or a phone, its whole story in Postgres.

Every flag is also the environment variable WHISPER_FLAG_NAME and a key of the file given with --config; a flag wins over the environment, that over the file.`

// A command does what a subcommand is for. The context ends at the first signal.
type command interface {
	Run(ctx context.Context, p *process) error
}

// A checker tells what is wrong with its settings before anything is started; every complaint names
// its setting ("partitions: …").
type checker interface {
	Check() error
}

// process is what a command needs of the outside.
type process struct {
	stdout, stderr io.Writer
	log            *slog.Logger
	now            func() time.Time
	model          *kong.Application

	logFormat string
	logLevel  string // as it was given; empty: the command's own default
}

// logger is for commands whose default level is not info.
func (p *process) logger(byDefault slog.Level) *slog.Logger {
	level, err := ops.ParseLevel(p.logLevel)
	if err != nil {
		level = byDefault
	}
	return ops.NewLogger(p.stderr, p.logFormat, level, ops.IsTerminal(raw(p.stderr)))
}

// run is the whole program, for main and for tests.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	stdout, stderr = printable(stdout), printable(stderr)
	var c cli
	settings := newSettings(environ)
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
func start(ctx context.Context, parsed *kong.Context, c *cli, settings *settings, stdout, stderr io.Writer) int {
	node := parsed.Selected()
	name := node.FullPath()
	p := &process{
		stdout: stdout, stderr: stderr, now: time.Now, model: parsed.Model,
		logFormat: c.LogFormat, logLevel: c.LogLevel,
	}
	errs := settings.errs
	if c.LogLevel != "" {
		_, err := ops.ParseLevel(c.LogLevel)
		errs = append(errs, err)
	}
	cmd, ok := node.Target.Addr().Interface().(command)
	if !ok {
		_, _ = fmt.Fprintf(stderr, "whisper: %s has nothing to run\n", name)
		return exitError
	}
	if c, ok := cmd.(checker); ok {
		errs = append(errs, c.Check())
	}
	errs = append(errs, zeroes(parsed, errs))
	if err := badSettings(errs); err != nil {
		return report(stderr, settings, name, err)
	}
	p.log = p.logger(slog.LevelInfo)
	return report(stderr, settings, name, cmd.Run(ctx, p))
}

// zeroes complains of every number and duration that is 0 though it means nothing there: what takes a setting of 0
// for none given would go on with its default, and nobody would know. Where 0 means something the flag says so, by
// the tag zero. Flags that the command complains of itself are left to it.
func zeroes(parsed *kong.Context, errs []error) error {
	told := map[string]bool{}
	for _, err := range flatten(errors.Join(errs...)) {
		name, _, _ := strings.Cut(err.Error(), ":")
		told[name] = true
	}
	var found []error
	for _, group := range parsed.Selected().AllFlags(false) {
		for _, flag := range group {
			// A default that is a number other than 0, perhaps with a unit.
			byDefault := strings.ContainsAny(flag.Default[:min(1, len(flag.Default))], "123456789")
			if !byDefault || !flag.Target.CanInt() || !flag.Target.IsZero() || flag.Tag.Has("zero") || told[flag.Name] {
				continue
			}
			found = append(found, fmt.Errorf("%s: must be greater than 0", flag.Name))
		}
	}
	return errors.Join(found...)
}

// usageError is a wrong setting; it ends with exit code 2.
type usageError struct{ errs []error }

func (e *usageError) Error() string   { return errors.Join(e.errs...).Error() }
func (e *usageError) Unwrap() []error { return e.errs }

// badSettings gathers complaints, or is nil.
func badSettings(errs []error, more ...error) error {
	var flat []error
	for _, err := range append(errs, more...) {
		flat = append(flat, flatten(err)...)
	}
	if len(flat) == 0 {
		return nil
	}
	return &usageError{flat}
}

// flatten takes joined errors apart: one line each.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var flat []error
	for _, e := range joined.Unwrap() {
		flat = append(flat, flatten(e)...)
	}
	return flat
}

// report says on w why a command ended and gives the exit code.
func report(w io.Writer, settings *settings, name string, err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &usage):
		_, _ = fmt.Fprintf(w, "%s: %s\n", name, distinctLines(err.Error()))
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

// distinctLines leaves out lines that were there before: pgx tries an address with TLS and without, and says twice why neither worked.
func distinctLines(text string) string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if !slices.Contains(kept, line) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
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

// oneLine keeps what is printed of a record or an error on one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
