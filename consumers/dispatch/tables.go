package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// tables are what every partition needs and one reader follows: which nodes live, the templates and the categories.
type tables struct {
	log *slog.Logger
	now func() time.Time
	// silent is how many heartbeats a node may miss.
	silent int

	mu        sync.Mutex
	nodes     map[string]*nodeState
	templates map[string]decide.TemplateChanged
	// templatesNext is the offset up to which the templates are read, which may be past the last record.
	templatesNext int64
	lookEvery     time.Duration // how often the end of the templates is looked for
	declared      map[string]decide.CategoryChanged
	parts         map[*partition]bool
	nodesNext     int64         // the heartbeat that comes next
	looked        time.Time     // when watch last looked
	live          bool          // heartbeats are read as they come, no longer from the past
	restored      chan struct{} // all topics are read up to our start
	sweeper       sweeper
	forgotten     func(map[string]uint64) // is told whose heartbeats are to be removed
	known         func(map[string]bool)   // is told once an hour which nodes have a heartbeat
}

type nodeState struct {
	incarnation uint64
	deadline    time.Time
	heartbeat   time.Duration
	alive       bool
}

func newTables(log *slog.Logger, now func() time.Time) *tables {
	return &tables{
		log: log, now: now, silent: 4,
		nodes: map[string]*nodeState{}, templates: map[string]decide.TemplateChanged{},
		declared: map[string]decide.CategoryChanged{}, parts: map[*partition]bool{},
		restored: make(chan struct{}), lookEvery: time.Second, forgotten: func(map[string]uint64) {}, known: func(map[string]bool) {},
	}
}

// attach waits until the tables are restored, tells p what they have, and from then on what changes. The
// categories are its result: they must be known before anything is decided, feedback included.
func (t *tables) attach(ctx context.Context, p *partition) ([]decide.CategoryChanged, error) {
	select {
	case <-t.restored:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts[p] = true
	for node, n := range t.nodes {
		if n.alive {
			p.mail.tell(decide.NodeChanged{Node: node, Incarnation: n.incarnation})
		}
	}
	for _, tmpl := range t.templates {
		p.mail.tell(tmpl)
	}
	p.mail.tell(decide.TemplatesRead{Next: t.templatesNext})
	return slices.Collect(maps.Values(t.declared)), nil
}

func (t *tables) detach(p *partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.parts, p)
}

func (t *tables) tell(in decide.Input) {
	for p := range t.parts {
		p.mail.tell(in)
	}
}

// restore follows the topics and returns when they are read up to now.
func (t *tables) restore(ctx context.Context, r *consumers.Reader) error {
	all, err := r.FollowAll(ctx, 0,
		consumers.Followed{Topic: consumers.TopicNodes, From: consumers.FromStart, Sink: t.heartbeats},
		consumers.Followed{Topic: consumers.TopicTemplates, From: consumers.FromStart, Sink: t.template},
		consumers.Followed{Topic: consumers.TopicCategories, From: consumers.FromStart, Sink: t.category},
	)
	if err != nil {
		return err
	}
	for _, caughtUp := range all {
		select {
		case <-caughtUp:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t.mu.Lock()
	t.live = true
	t.mu.Unlock()
	close(t.restored)
	return nil
}

// heartbeats takes nodes' records. A heartbeat from before our start counts from its own time.
func (t *tables) heartbeats(recs []*kgo.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, rec := range recs {
		t.nodesNext = rec.Offset + 1
		m := &whisperv1.Node{}
		if rec.Value == nil {
			t.ended(rec)
			continue
		}
		if err := proto.Unmarshal(rec.Value, m); err != nil || m.GetIncarnation() == 0 {
			t.log.Warn("a node's heartbeat can't be read", "offset", rec.Offset, "error", err)
			continue
		}
		n := t.nodes[string(rec.Key)]
		if n == nil {
			n = &nodeState{}
			t.nodes[string(rec.Key)] = n
		}
		if m.GetIncarnation() < n.incarnation {
			continue // an earlier start that has not noticed yet
		}
		heard := t.now()
		if !t.live {
			heard = rec.Timestamp
		}
		changed := m.GetIncarnation() != n.incarnation
		n.incarnation = m.GetIncarnation()
		n.heartbeat = max(time.Duration(m.GetHeartbeatMs())*time.Millisecond, 100*time.Millisecond)
		n.deadline = heard.Add(time.Duration(t.silent) * n.heartbeat)
		if alive := t.now().Before(n.deadline); alive && (changed || !n.alive) {
			n.alive = true
			t.log.Info("node lives", "node", m.GetNode(), "incarnation", n.incarnation)
			t.tell(decide.NodeChanged{Node: m.GetNode(), Incarnation: n.incarnation})
		}
	}
}

func (t *tables) gone(node string) {
	if n := t.nodes[node]; n != nil && n.alive {
		n.alive = false
		t.tell(decide.NodeChanged{Node: node})
	}
}

// watchEvery is how often silence is looked for.
const watchEvery = 200 * time.Millisecond

// watch declares silent nodes dead until ctx ends. end says which heartbeat comes next in Kafka: nobody is
// silent whose heartbeats lie there while our reader stands still, nor while Kafka says nothing.
func (t *tables) watch(ctx context.Context, end func(context.Context) (int64, error)) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		silent, sweep := t.look(), t.sweeping()
		if !silent && !sweep {
			continue
		}
		next, err := end(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("find out whether nodes are silent: %w", err)
		}
		t.bury(next)
		if sweep {
			over, known := t.sweep(next)
			t.forgotten(over)
			if known != nil {
				t.known(known)
			}
		}
	}
}

func (t *tables) sweeping() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live && t.sweeper.due(t.now())
}

// look says whether there is a node that was not heard of. Time in which this process did not run counts for
// nobody: heartbeats may lie there unread.
func (t *tables) look() (silent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	late := now.Sub(t.looked) - watchEvery
	if t.looked.IsZero() || late < watchEvery {
		late = 0 // what a ticker may be off
	}
	t.looked = now
	for _, n := range t.nodes {
		n.deadline = n.deadline.Add(late)
		silent = silent || n.silent(now)
	}
	return silent
}

func (n *nodeState) silent(now time.Time) bool { return n.alive && !now.Before(n.deadline) }

// bury declares those dead who are still silent when all heartbeats before next are read.
func (t *tables) bury(next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodesNext < next {
		return
	}
	for node, n := range t.nodes {
		if n.silent(t.now()) {
			t.log.Warn("node is silent, its users are routed anew", "node", node, "incarnation", n.incarnation)
			t.gone(node)
		}
	}
}

// followTemplates looks now and then whether the end of the templates is read, though no record said so: compaction
// leaves holes, also at the end, and who waits for what stood there must hear that it won't come.
func (t *tables) followTemplates(ctx context.Context, r *consumers.Reader) error {
	tick := time.NewTicker(t.lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.restored:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		t.mu.Lock()
		from := t.templatesNext
		t.mu.Unlock()
		next, err := r.Passed(ctx, consumers.TopicTemplates, 0, from)
		if err != nil {
			if ctx.Err() == nil {
				t.log.Warn("look for the end of the templates", "error", err)
			}
			continue
		}
		t.mu.Lock()
		t.readTo(next)
		t.mu.Unlock()
	}
}

// readTo notes the position; the caller holds mu.
func (t *tables) readTo(next int64) {
	if next > t.templatesNext {
		t.templatesNext = next
		t.tell(decide.TemplatesRead{Next: next})
	}
}

func (t *tables) template(recs []*kgo.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.readTo(recs[len(recs)-1].Offset + 1) }()
	for _, rec := range recs {
		seen := decide.TemplateChanged{ID: string(rec.Key), Version: rec.Offset, Current: consumers.TemplateVersionOf(rec)}
		if len(rec.Value) > 0 {
			tmpl, err := template.Parse(rec.Value)
			if err != nil {
				continue // intake dead-letters it and refuses requests that name it
			}
			seen.Template = tmpl
		}
		t.templates[seen.ID] = seen
		t.tell(seen)
	}
}

// category takes declarations. A bad one changes nothing: what was declared before it stays.
func (t *tables) category(recs []*kgo.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, rec := range recs {
		seen := decide.CategoryChanged{Name: string(rec.Key)}
		if len(rec.Value) == 0 {
			delete(t.declared, seen.Name)
			t.tell(seen)
			continue
		}
		category, err := category.Parse(seen.Name, rec.Value)
		if err != nil {
			t.log.Warn("a category can't be used, its rules stay as they were", "category", seen.Name, "offset", rec.Offset, "error", err)
			continue // intake dead-letters it
		}
		seen.Category = category
		t.declared[seen.Name] = seen
		t.tell(seen)
	}
}
