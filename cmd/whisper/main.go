// Command whisper is the one binary of Whisper: every role, `whisper dev` with all of them in one
// process, and the tools that operators and developers use. This package owns flags, wiring, signals
// and what people read on a terminal; what a role does lives in its package.
//
// Exit codes: 0 a clean end, 1 something failed while running, 2 the settings are wrong.
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
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
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
