package requests

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/template"
)

// Catalogue knows the templates, from the records of whisper.templates that it is given.
type Catalogue struct {
	log  *slog.Logger
	wait time.Duration
	adm  *kadm.Client

	mu      sync.Mutex
	known   map[string]knownTemplate
	next    int64         // everything before is known
	inVain  int64         // an end that was waited for and did not come
	arrived chan struct{} // closed when next moves
}

// knownTemplate is the last record of a key; of a bad one there is only why.
type knownTemplate struct {
	name    string // the key that deliveries are rendered from: pinned to a version where the template has versions
	version int64  // its record's offset
	current int64  // of a key that is not pinned: the version that it is a copy of, 0 where there are none
	parsed  *template.Template
	bad     error
}

// NewCatalogue makes an empty one. wait bounds how long a request waits for a template that was written just before it.
func NewCatalogue(client consumers.ClientConfig, wait time.Duration, log *slog.Logger) (*Catalogue, error) {
	adm, err := client.Admin()
	if err != nil {
		return nil, err
	}
	return &Catalogue{log: log, wait: wait, adm: adm, known: map[string]knownTemplate{}, arrived: make(chan struct{})}, nil
}

// Close ends its client.
func (c *Catalogue) Close() { c.adm.Close() }

// Read takes records of whisper.templates, in their order, from the first one on.
func (c *Catalogue) Read(records []*kgo.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rec := range records {
		c.next = rec.Offset + 1
		id := string(rec.Key)
		if len(rec.Value) == 0 {
			delete(c.known, id)
			continue
		}
		parsed, err := template.Parse(rec.Value)
		c.known[id] = knownTemplate{name: id, version: rec.Offset, current: consumers.TemplateVersionOf(rec), parsed: parsed, bad: err}
	}
	close(c.arrived)
	c.arrived = make(chan struct{})
}

// find looks a template up; bad is why a request can't use it. Upstream may write a template and a
// request that uses it in one breath, and two topics have no common order: so before it gives up,
// find asks where the templates end now, and waits once until everything up to there is known, or
// the wait is over. An error means that ctx ended.
func (c *Catalogue) find(ctx context.Context, id string) (t knownTemplate, bad, err error) {
	if t, bad = c.get(id); bad == nil {
		return t, nil, nil
	}
	end, err := c.end(ctx)
	if err != nil {
		return knownTemplate{}, nil, err
	}
	if err := c.await(ctx, end); err != nil {
		return knownTemplate{}, nil, err
	}
	t, bad = c.get(id)
	return t, bad, nil
}

// unknownTemplate is a word of its own: mostly the order of a release went wrong.
const unknownTemplate = "unknown_template"

func (c *Catalogue) get(id string) (t knownTemplate, bad error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.known[id]
	switch {
	case !ok:
		return t, &consumers.Reason{
			Word: unknownTemplate,
			Err:  fmt.Errorf("unknown template %q: %s has none of that key", id, consumers.TopicTemplates),
		}
	case t.bad != nil:
		return t, fmt.Errorf("template %q can't be used: %w", id, t.bad)
	}
	// From here on a delivery speaks of the version, whose record never changes: what is applied later is for later
	// requests, also in the middle of a broadcast.
	if pinned, ok := c.known[template.Pin(id, t.current)]; ok && t.current > 0 && pinned.bad == nil {
		return pinned, nil
	}
	return t, nil
}

// end is the offset after the last template that can be read. It asks until Kafka answers: not to know is no reason to
// refuse a request.
func (c *Catalogue) end(ctx context.Context) (int64, error) {
	for {
		ends, err := c.adm.ListCommittedOffsets(ctx, consumers.TopicTemplates)
		if err == nil {
			if end, ok := ends.Lookup(consumers.TopicTemplates, 0); ok && end.Err == nil {
				return end.Offset, nil
			} else if ok {
				err = end.Err
			}
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("find the end of the templates: %w", context.Cause(ctx))
		}
		c.log.Warn("waiting for the end of the templates", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// await waits until everything before end is known. Where that takes too long (the last record is one of
// a transaction's, which no reader sees), it is not waited for again.
func (c *Catalogue) await(ctx context.Context, end int64) error {
	timeout := time.NewTimer(c.wait)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		arrived, there := c.arrived, c.next >= end || c.inVain >= end
		c.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-arrived:
		case <-timeout.C:
			c.mu.Lock()
			c.inVain = max(c.inVain, end)
			c.mu.Unlock()
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for the templates: %w", context.Cause(ctx))
		}
	}
}
