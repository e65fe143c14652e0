package dev

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

// talk is what `whisper dev` says on the terminal: where everything is once it is up, the scene if it was
// asked for, and what to try next. It ends with the process.
func (d *system) talk(ctx context.Context) error {
	began := d.p.Now()
	if d.cmd.Demo {
		if !d.await(ctx, func(component string) bool { return component != "postgres" }) {
			return nil
		}
		if err := d.play(ctx); err != nil {
			return cli.UnlessStopped(ctx, err)
		}
	}
	if !d.await(ctx, func(string) bool { return true }) {
		return nil
	}
	if !d.cmd.Demo {
		d.say("\nWhisper is up, after %.1f s.\n", d.p.Now().Sub(began).Seconds())
	}
	d.banner()
	<-ctx.Done()
	d.say("\nstopping\n")
	return nil
}

func (d *system) say(format string, args ...any) { _, _ = fmt.Fprintf(d.p.Stdout, format, args...) }

// await is true when the components that count are ready, false when ctx ended. After a while it says what
// it waits for.
func (d *system) await(ctx context.Context, counts func(component string) bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	slow := time.NewTimer(3 * time.Second)
	defer slow.Stop()
	for {
		var reasons []string
		for component, reason := range d.base.Server.Reasons() {
			if counts(component) {
				reasons = append(reasons, component+": "+cli.OneLine(reason))
			}
		}
		if len(reasons) == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-slow.C:
			d.say("still waiting for %s\n", strings.Join(reasons, "; "))
		case <-tick.C:
		}
	}
}

func (d *system) banner() {
	state := "kept nowhere (--ephemeral)"
	if !d.cmd.Ephemeral {
		state = d.cmd.State
		if abs, err := filepath.Abs(state); err == nil {
			state = abs
		}
	}
	whisper, url := program(), d.postgresURL()
	kafka, sockets := "", ""
	if d.cmd.KafkaListen != defaultKafka {
		kafka = " --kafka " + d.kafka.Addr()
	}
	if d.cmd.Listen != defaultListen {
		sockets = " --url ws://" + d.sockets + "/v1/socket"
	}
	d.say(`
  Kafka       %s, %d partitions
  sockets     ws://%s/v1/socket
  page        http://%s/ (watch notifications arrive, send some)
  operations  http://%s (/readyz, /metrics, /v1/health)
  Postgres    %s
  state       %s

Try in another terminal:

  %s listen --user mona%s
  %s send --user mona --lane high --title Hello --body 'from the command line'%s
  echo '{"to":{"users":["mona"]},"content":{"title":"Hello","body":"from kcat"}}' | kcat -b %s -P -t whisper.requests.high
  curl http://%s/v1/health
  psql '%s' -c 'select notification_id, user_id, status, channel, attempts, accepted_at, sent_at, delivered_at, read_at from whisper.deliveries order by accepted_at desc limit 10'
  %s events --follow%s

Ctrl-C stops it.
`, d.kafka.Addr(), d.cmd.Partitions, d.sockets, d.sockets, d.base.Server.Addr(), url, state,
		whisper, sockets, whisper, kafka, d.kafka.Addr(), d.base.Server.Addr(), url, whisper, kafka)
}

const (
	defaultKafka  = "127.0.0.1:9092"
	defaultListen = "127.0.0.1:8080"
)

func (d *system) postgresURL() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.postgres
}

// program is how the person started this: what `go run` builds has a path that nobody can type.
func program() string {
	if strings.Contains(os.Args[0], "go-build") || strings.HasSuffix(os.Args[0], ".test") {
		return "go run ./cmd/whisper"
	}
	return os.Args[0]
}
