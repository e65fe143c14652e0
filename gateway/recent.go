package gateway

import "github.com/klivvr/whisper/domain"

// recent remembers what a session acknowledged last, so that a repeated ack is no error and a read is
// told of the right delivery. Of a session with ack=auto it remembers what only the client's own word settles: such a
// session may never say it, so that must not count against what it may have unacknowledged. The delivery itself, some
// 0.5 KiB with its record, stays for one ping or two while it is one of the last few; after that 32 bytes are left of it, at
// most 2 KiB a session.
type recent struct {
	entries []remembered
	next    int
}

type remembered struct {
	d       *delivery
	id      domain.DeliveryID
	attempt int32
	lane    domain.Lane
	read    bool // told after d was let go
	old     bool
	open    bool // only the client's own word counts, and it has not come
}

const recentEntries = 64

// recentWhole is how many of the last deliveries stay whole: people read what has just come. A busy session would keep
// all 64, which is ten times the memory that it has otherwise.
const recentWhole = 8

func (r *recent) add(d *delivery) { r.put(remembered{d: d}) }

// await adds one that the client has not acknowledged, in the place of its earlier attempt.
func (r *recent) await(d *delivery) {
	if e := r.find(d.id); e != nil {
		*e = remembered{d: d, id: d.id, attempt: d.facts.Attempt, lane: d.facts.Lane, open: true}
		return
	}
	r.put(remembered{d: d, open: true})
}

// drop takes out one that its socket did not get.
func (r *recent) drop(d *delivery) {
	for i := range r.entries {
		if e := &r.entries[i]; e.id == d.id && e.attempt == d.facts.Attempt {
			*e = remembered{}
		}
	}
}

func (r *recent) put(e remembered) {
	e.id, e.attempt, e.lane = e.d.id, e.d.facts.Attempt, e.d.facts.Lane
	if len(r.entries) < recentEntries {
		r.entries = append(r.entries, e)
	} else {
		r.entries[r.next] = e
		r.next = (r.next + 1) % recentEntries
	}
	if n := len(r.entries); n > recentWhole {
		r.entries[(r.next+n-1-recentWhole)%n].d = nil
	}
}

// find is the entry of a delivery, or of the latest one with that hash where the id has no time.
func (r *recent) find(id domain.DeliveryID) (found *remembered) {
	hash, timeless := id.Hash(), id.Timeless()
	for i := range r.entries {
		e := &r.entries[i]
		if e.id.Hash() == hash && (timeless || e.id == id) && (found == nil || e.id.Compare(found.id) > 0) {
			found = e
		}
	}
	return found
}

// age lets go of the deliveries that it found before.
func (r *recent) age() {
	for i := range r.entries {
		e := &r.entries[i]
		if e.old {
			e.d = nil
		}
		e.old = true
	}
}

// delivery is the one that is remembered, or what is left of it: sent, and delivered unless the client's word is still
// to come, without cause and trace. Then another session's may have come: it is told twice, which harms nobody.
func (e *remembered) delivery(s *session, notification string, reading bool) *delivery {
	if e.d != nil {
		return e.d
	}
	d := &delivery{
		routed: &routed{
			g:         s.g,
			requested: e.id.Time(), facts: domain.AttemptFacts{Notification: notification, Lane: e.lane, Attempt: e.attempt, Node: s.g.cfg.Node},
		},
		id: e.id, user: s.user, told: true, delivered: !e.open, read: e.read, sentUS: e.id.Time().UnixMicro(),
	}
	e.read = e.read || reading
	return d
}
