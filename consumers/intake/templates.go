package intake

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/template"
)

// takeTemplate dead-letters a bad template, once for all processes. Using good ones is the catalogue's. A version's own
// key (card-payment@3) is as good as the template's: `whisper templates apply` writes both.
func (r *Role) takeTemplate(ctx context.Context, rc *receipt) error {
	err := checkKey("template", string(rc.rec.Key), domain.CheckID)
	if err == nil && len(rc.rec.Value) > 0 {
		_, err = template.Parse(rc.rec.Value)
	}
	if err != nil {
		rc.settled = r.metrics.templatesRefused.Inc
		rc.refuse(ctx, err)
		return nil
	}
	r.metrics.templatesAccepted.Inc()
	rc.feed.mark.Done(rc.rec.Offset)
	return nil
}

// catalogue follows whisper.templates: every process has all of them, from the topic's start.
type catalogue struct {
	cfg    Config
	reader *consumers.Reader
	adm    *kadm.Client
	ready  atomic.Bool

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

func newCatalogue(cfg Config) (*catalogue, error) {
	c := &catalogue{cfg: cfg, known: map[string]knownTemplate{}, arrived: make(chan struct{})}
	var err error
	if c.reader, err = consumers.NewReader(cfg.Client); err != nil {
		return nil, err
	}
	if c.adm, err = cfg.Client.Admin(); err != nil {
		c.reader.Close()
		return nil, err
	}
	return c, nil
}

func (c *catalogue) close() {
	c.reader.Close()
	c.adm.Close()
}

func (c *catalogue) run(ctx context.Context) error { return c.reader.Run(ctx) }

// follow returns when everything is known that there was when it began, or ctx ended.
func (c *catalogue) follow(ctx context.Context) error {
	caughtUp, err := c.reader.Follow(ctx, consumers.TopicTemplates, 0, consumers.FromStart, c.read)
	if err != nil {
		if ended(ctx) {
			return nil
		}
		return fmt.Errorf("follow the templates: %w", err)
	}
	select {
	case <-caughtUp:
		c.ready.Store(true)
	case <-ctx.Done():
	}
	return nil
}

func (c *catalogue) read(records []*kgo.Record) {
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
// TemplateWait is over. An error means that ctx ended.
func (c *catalogue) find(ctx context.Context, id string) (t knownTemplate, bad, err error) {
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

func (c *catalogue) get(id string) (t knownTemplate, bad error) {
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
func (c *catalogue) end(ctx context.Context) (int64, error) {
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
		c.cfg.Logger.Warn("waiting for the end of the templates", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// await waits until everything before end is known. Where that takes too long (the last record is one of
// a transaction's, which no reader sees), it is not waited for again.
func (c *catalogue) await(ctx context.Context, end int64) error {
	timeout := time.NewTimer(c.cfg.TemplateWait)
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
