package main

import (
	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/cmd/whisper/dev"
	"github.com/klivvr/whisper/cmd/whisper/operate"
	"github.com/klivvr/whisper/cmd/whisper/roles"
)

// cli is the command line: one field a subcommand, in the order of the help.
type commands struct {
	Config    string `help:"Read settings from this YAML or JSON file; its keys are the names of flags." placeholder:"FILE" group:"general"`
	LogFormat string `help:"How to write logs: auto is text on a terminal, JSON elsewhere." enum:"${log_formats}" default:"auto" placeholder:"auto|text|json" group:"general"`
	LogLevel  string `help:"Lowest level to log: debug, info, warn or error (default info; warn for dev and the tools)." placeholder:"LEVEL" group:"general"`

	Dev dev.Dev `cmd:"" group:"everything" help:"Run everything in one process, with nothing installed."`

	Intake   roles.Intake   `cmd:"" group:"roles" help:"Read requests and profiles from upstream."`
	Dispatch roles.Dispatch `cmd:"" group:"roles" help:"Decide what is sent when, and over which channel."`
	Gateway  roles.Gateway  `cmd:"" group:"roles" help:"Hold the sockets of clients."`
	Push     roles.Push     `cmd:"" group:"roles" help:"Hand notifications to push providers (APNs, FCM)."`
	Project  roles.Project  `cmd:"" group:"roles" help:"Fold facts into Postgres, and answer /v1/health."`

	Topics roles.Topics `cmd:"" group:"setup" help:"Show or make the Kafka topics that Whisper needs."`

	Categories operate.Categories `cmd:"" group:"setup" help:"Declare categories: how often and when their notifications may be sent."`

	Migrate roles.Migrate `cmd:"" group:"setup" help:"Bring the Postgres schema up to date."`

	Send        operate.Send        `cmd:"" group:"people" help:"Ask for a notification, or cancel one."`
	Listen      dev.Listen          `cmd:"" group:"people" help:"Connect as a user and print what arrives."`
	Token       dev.Token           `cmd:"" group:"people" help:"Print a token for a client's socket."`
	Templates   operate.Templates   `cmd:"" group:"people" help:"Check, apply, preview, list or show templates."`
	Revoke      operate.Revoke      `cmd:"" group:"people" help:"Close a user's sockets, and refuse the tokens that opened them."`
	Profile     operate.Profile     `cmd:"" group:"people" help:"Change a user's profile, or erase the user."`
	Events      operate.Events      `cmd:"" group:"people" help:"Print the facts about deliveries."`
	Broadcasts  operate.Broadcasts  `cmd:"" group:"people" help:"List, show, watch or steer broadcasts."`
	Deliveries  operate.Deliveries  `cmd:"" group:"people" help:"List or show deliveries as Postgres has them."`
	Deadletters operate.DeadLetters `cmd:"" group:"people" help:"List, show or redrive records that a role could not process."`
	Nodes       operate.Nodes       `cmd:"" group:"people" help:"List the gateways: their load, and which are draining or silent."`
	Sessions    operate.Sessions    `cmd:"" group:"people" help:"List the open sockets of the gateways: whose, since when, from where."`
	Health      operate.Health      `cmd:"" group:"people" help:"Print the health of a running Whisper."`

	Bench dev.Bench `cmd:"" group:"measure" help:"Measure Whisper on this machine."`

	Simulate      dev.Simulate      `cmd:"" group:"other" help:"Run a simulated push provider: apns or fcm."`
	ApnsSimulator dev.APNsSimulator `cmd:"" group:"other" help:"The same as simulate apns."`
	Completion    completionCmd     `cmd:"" group:"other" help:"Print the completion script of a shell."`
	Version       versionCmd        `cmd:"" group:"other" help:"Print the version."`
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
	{Key: "fcm", Title: "FCM:"},
	{Key: "project", Title: "Projections:"},
	{Key: "health", Title: "Limits past which /v1/health says degraded:"},
	{Key: "kafka", Title: "Kafka:"},
	{Key: "topics", Title: "Topics (the same for every role of a cluster):"},
	{Key: "postgres", Title: "Postgres:"},
	{Key: "ops", Title: "Operations:"},
}

const description = `Whisper delivers notifications: a Kafka record in, a notification on a socket or a phone, its whole story in Postgres.

Every flag is also the environment variable WHISPER_FLAG_NAME and a key of the file given with --config; a flag wins over
the variable, and the variable over the file.`
