package dispatch

import (
	"context"
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// onWarning is told of each warning.
type onWarning func()

func (onWarning) Enabled(_ context.Context, level slog.Level) bool { return level == slog.LevelWarn }
func (f onWarning) Handle(context.Context, slog.Record) error      { f(); return nil }
func (f onWarning) WithAttrs([]slog.Attr) slog.Handler             { return f }
func (f onWarning) WithGroup(string) slog.Handler                  { return f }

// A stray that comes while others are written over asks for a round of its own: nothing else may ever come after it.
func TestAStrayThatComesDuringARepairIsNotForgotten(t *testing.T) {
	t.Parallel()
	nobody := consumers.ClientConfig{Brokers: []string{"127.0.0.1:1"}}
	bulk, err := consumers.NewPublisher(nobody, consumers.LingerBulk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bulk.Close)
	cfg := Config{Client: nobody, Logger: slog.New(slog.DiscardHandler)}
	cfg.setDefaults()
	r := &Role{cfg: cfg, bulk: bulk, metrics: newRoleMetrics()}
	p := newPartition(r, 0)
	late := true
	r.log = slog.New(onWarning(func() {
		if late {
			late = false
			p.repairs.add(&kgo.Record{Topic: consumers.TopicTimers, Key: []byte("parked")})
		}
	}))
	p.repairs.add(&kgo.Record{Topic: consumers.TopicUsers, Key: []byte("mona")})
	p.repair()
	if late {
		t.Fatal("mona was not written")
	}
	p.repair()
	if !p.repairs.open["parked"] {
		t.Error("nobody searches for what is parked")
	}
}
