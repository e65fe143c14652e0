package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// restore folds the partition's changelogs into its state: users, the window, what is parked, presence.
// Feedback (whisper.events) and profile changes come through the group from their committed offsets.
func (p *partition) restore(ctx context.Context) (err error) {
	begin := time.Now()
	p.state.SetAside(p.role.poison.aside())
	if err := p.bounds(ctx); err != nil {
		return err
	}
	p.state.RestoreChangesFrom(p.sources[queueChanges].Start)
	parked := map[string]string{}
	t := newTakeover()
	// Sinks run one at a time on the reader's goroutine, and are done when caughtUp is closed.
	topics := []consumers.Followed{
		{Topic: consumers.TopicUsers, Sink: t.current(consumers.TopicUsers, p.each(p.restoreUser))},
		{Topic: consumers.TopicSeen, Sink: t.current(consumers.TopicSeen, p.each(p.restoreSeen))},
		{Topic: consumers.TopicCounters, Sink: t.current(consumers.TopicCounters, p.each(p.restoreCounted))},
		{Topic: consumers.TopicTimers, Sink: t.current(consumers.TopicTimers,
			p.each(func(rec *kgo.Record) error { return collectParked(parked, rec) }))},
		{Topic: consumers.TopicPresence, Sink: p.presence},
		{Topic: consumers.TopicTokens, Sink: p.claims(t)},
	}
	const restored = 4 // of these; the others are followed on
	for i := range topics {
		topics[i].From = consumers.FromStart
	}
	caughtUp, err := p.role.reader.FollowAll(ctx, p.id, topics...)
	if err != nil {
		return err
	}
	defer func() { // also when the partition went meanwhile: it may come back, and can't be followed twice
		if err != nil {
			p.stopTails()
			for _, t := range topics {
				p.role.reader.Unfollow(t.Topic, p.id)
			}
		}
	}()
	for _, c := range caughtUp {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := p.takeOver(ctx, t); err != nil {
		return err
	}
	for _, t := range topics[:restored] {
		p.role.reader.Unfollow(t.Topic, p.id) // its sink shares memory with what follows
	}
	if err := p.followTails(ctx, t); err != nil {
		return err
	}
	categories, err := p.role.tables.attach(ctx, p)
	if err != nil {
		return err
	}
	for _, category := range categories {
		p.write(nil, p.state.Decide(category, p.role.cfg.Now()))
	}
	p.repairRestored(t, parked)
	if err := p.restoreParked(parked); err != nil {
		return err
	}
	p.replayed()
	st := p.state.Stats()
	p.role.log.Info("partition restored", "partition", p.id, "users", st.Users, "connected", st.Connected,
		"parked", st.Parked, "window", st.Seen, "owner", p.ownedAs, "took", time.Since(begin))
	return nil
}

// bounds finds out what of the group's topics is a replay: everything that is there now.
func (p *partition) bounds(ctx context.Context) error {
	topics := []string{consumers.TopicEvents}
	for lane := range p.laneEnds {
		topics = append(topics, consumers.TopicDeliveries(domain.Lane(lane)))
	}
	spans, err := p.role.reader.BoundsOf(ctx, p.id, topics...)
	if err != nil {
		return err
	}
	p.eventsStart = max(p.sources[queueEvents].Start, spans[0].Start)
	p.eventsNext, p.eventsEnd = p.eventsStart, spans[0].End
	for lane, span := range spans[1:] {
		p.laneStarts[lane] = max(p.sources[queueHigh+lane].Start, span.Start)
		p.laneEnds[lane] = span.End
	}
	return nil
}

// emptyIn is how often the topics are asked whether what the replay waits for still exists.
const emptyIn = time.Second

// passEmpty sees to it that the replay ends: between bounds and the reading retention may remove what was there, and
// where nothing comes after it no feed would ever be told.
func (p *partition) passEmpty(sources [queues]*consumers.Partition, ends [queues]int64) {
	tick := time.NewTicker(emptyIn)
	defer tick.Stop()
	for left := queues; left > 0; {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		left = 0
		for q, end := range ends {
			if end == 0 {
				continue
			}
			passed, err := sources[q].PassEmpty(p.ctx, p.role.reader, end)
			if err != nil && p.ctx.Err() == nil {
				p.role.log.Warn("look for the end of the replay", "topic", sources[q].Topic, "partition", p.id, "error", err)
			}
			if !passed {
				left++
			}
		}
	}
}

func (p *partition) restoreUser(rec *kgo.Record) error {
	if err := wireError(rec.Value); err != nil {
		return err
	}
	p.state.RestoreUser(string(rec.Key), rec.Value)
	return nil
}

func (p *partition) restoreSeen(rec *kgo.Record) error {
	m := &whisperv1.Seen{}
	if err := proto.Unmarshal(rec.Value, m); err != nil {
		return err
	}
	hashes, size := m.GetHashes(), len(domain.DeliveryHash{})
	later, keep := m.GetLaterMs(), m.GetKeepMs()
	if keep == nil { // none is kept for longer than the window
		keep = make([]uint64, len(m.GetRequests()))
	}
	if later == nil { // an earlier version's
		later = make([]uint64, len(m.GetRequests()))
	}
	if n := len(m.GetRequests()); len(hashes) != size*n || len(m.GetAcceptedMs()) != n || len(later) != n || len(keep) != n {
		return errors.New("lists of different lengths")
	}
	p.patches.restore(m)
	for i, request := range m.GetRequests() {
		seen := decide.SeenDelivery{
			Hash: domain.DeliveryHash(hashes[i*size : (i+1)*size]), Request: request, AcceptedMs: int64(m.GetAcceptedMs()[i]),
			TakenMs: rec.Timestamp.UnixMilli(),
		}
		if keep[i] > 0 {
			seen.KeepMs = seen.AcceptedMs + int64(keep[i])
		}
		if later[i] > 0 {
			seen.EndedMs = seen.AcceptedMs + int64(later[i])
		}
		p.state.RestoreSeen(seen)
	}
	return nil
}

func (p *partition) restoreCounted(rec *kgo.Record) error {
	m := &whisperv1.Counted{}
	if err := proto.Unmarshal(rec.Value, m); err != nil {
		return err
	}
	hashes, size, n := m.GetHashes(), len(domain.DeliveryHash{}), len(m.GetUsers())
	if len(hashes) != size*n || len(m.GetAtMs()) != n || len(m.GetCategory()) != n {
		return errors.New("lists of different lengths")
	}
	for _, category := range m.GetCategory() {
		if category < 0 || int(category) >= len(m.GetCategories()) {
			return fmt.Errorf("no category %d", category)
		}
	}
	for _, user := range m.GetErased() {
		p.state.RestoreUncounted(user)
	}
	for i, user := range m.GetUsers() {
		category := int(m.GetCategory()[i])
		p.state.RestoreCounted(decide.Count{
			User: user, Category: m.GetCategories()[category], At: time.UnixMilli(int64(m.GetAtMs()[i])),
			Hash: domain.DeliveryHash(hashes[i*size : (i+1)*size]),
		})
	}
	return nil
}

// collectParked keeps the last word on each parked delivery, encoded: decoded, one who is away would take 400 bytes.
func collectParked(parked map[string]string, rec *kgo.Record) error {
	if rec.Value == nil {
		delete(parked, string(rec.Key))
		return nil
	}
	if err := proto.Unmarshal(rec.Value, &whisperv1.Parked{}); err != nil {
		return err
	}
	parked[string(rec.Key)] = string(rec.Value)
	return nil
}

// restoreParked decodes one after the other, and lets go of what is restored.
func (p *partition) restoreParked(parked map[string]string) error {
	for _, key := range sortedKeys(parked) {
		value := []byte(parked[key])
		delete(parked, key)
		p.tellParkedAside(key, value)
		m := &whisperv1.Parked{}
		if err := proto.Unmarshal(value, m); err != nil {
			return fmt.Errorf("decode what is parked: %w", err) // it was read before
		}
		p.state.RestoreParked(m)
	}
	return nil
}

// presence hands presence to the loop, during the restore and ever after.
func (p *partition) presence(recs []*kgo.Record) {
	inputs := make([]decide.Input, 0, len(recs))
	for _, rec := range recs {
		user, node, ok := bytes.Cut(rec.Key, []byte{0})
		if !ok {
			p.junk(rec, errors.New("the key is not user, 0x00, node"))
			continue
		}
		in := decide.PresenceChanged{User: string(user), Node: string(node), Incarnation: incarnationOf(rec)}
		if rec.Value != nil {
			in.Presence = &whisperv1.Presence{}
			if err := proto.Unmarshal(rec.Value, in.Presence); err != nil {
				p.junk(rec, err)
				continue
			}
		}
		inputs = append(inputs, in)
	}
	p.mail.tell(inputs...)
}

// incarnationOf is the header that gateways write on presence, since a tombstone has no value to tell whose
// it is; 0 where it is missing.
func incarnationOf(rec *kgo.Record) uint64 {
	value, _ := consumers.Header(rec, "incarnation")
	n, _ := strconv.ParseUint(string(value), 10, 64) // 0, not known, on an error
	return n
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare) // a delivery id sorts by time
	return keys
}
