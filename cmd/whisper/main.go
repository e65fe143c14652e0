// Command whisper is the one binary of Whisper: every role, `whisper dev` with all of them in one process, and the tools
// that operators and developers use. It owns flags, wiring, signals and what people read on a terminal; what a role does
// lives in its package.
//
// The table of subcommands is commands.go. A subcommand is a type in one of
//
//	roles    what runs in production, and what is done before it: intake, dispatch, gateway, push, project, topics, migrate
//	operate  what operators use: send, events, deliveries, broadcasts, categories, templates, health, nodes, sessions, …
//	dev      what developers use: dev, listen, token, bench, apns-simulator
//
// and package cli is what they share: a process's outside, the flags of Kafka and Postgres, and printing. The arrows: cli
// imports none of the others, roles and operate import cli only, dev imports all three.
//
// Exit codes: 0 a clean end, 1 something failed while running, 2 the settings are wrong. The second signal ends the process
// with 128 and the signal's number.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/klivvr/whisper/embedded"

	_ "github.com/klivvr/whisper/ops/stdlog" // before what logs while it is initialised

	// An image from scratch has no certificates of its own, and Apple's must be checked.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() {
	embedded.RunIfPostgresHost()
	ctx, stop := untilSignal(context.Background())
	code := program{args: os.Args[1:], environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}.Run(ctx)
	stop()
	os.Exit(code)
}

// untilSignal ends the context at the first SIGINT or SIGTERM, which begins the drain; a second one ends
// the process at once, with the code that shells expect of it.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		if sig, ok := (<-signals).(syscall.Signal); ok {
			os.Exit(128 + int(sig))
		}
	}()
	return ctx, cancel
}
