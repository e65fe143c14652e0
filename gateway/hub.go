package gateway

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// stamper is the node's clock for facts and presence: Unix microseconds, strictly increasing over all
// that this process writes, so that any two of its records are ordered by them. 100 ns each.
type stamper struct {
	now  func() time.Time
	last atomic.Int64
}

func (c *stamper) next() int64 {
	for {
		last := c.last.Load()
		at := max(c.now().UnixMicro(), last+1)
		if c.last.CompareAndSwap(last, at) {
			return at
		}
	}
}

const shards = 64

// hub knows which sessions each user has here. Users are spread over shards, each under a lock of its
// own; nothing blocks under one.
type hub struct {
	seed    maphash.Seed
	stamp   *stamper
	changed func(*user) // called under the shard's lock, once until the presence is taken
	limit   int         // sessions of one user
	shards  [shards]shard
}

type shard struct {
	mu    sync.Mutex
	users map[string]*user
}

// user is what the node holds of one user; its shard's lock guards all but id.
type user struct {
	id       string
	sessions []*session
	latest   string
	// changedUS is when sessions changed last: presence.at_us.
	changedUS int64
	dirty     bool // waits to be published
	gone      bool // the tombstone is published
}

func newHub(stamp *stamper, limit int, changed func(*user)) *hub {
	h := &hub{seed: maphash.MakeSeed(), stamp: stamp, limit: limit, changed: changed}
	for i := range h.shards {
		h.shards[i].users = map[string]*user{}
	}
	return h
}

func (h *hub) shard(id string) *shard { return &h.shards[h.shardIndex(id)] }

func (h *hub) shardIndex(id string) int { return int(maphash.String(h.seed, id) % shards) }

// add opens the session to frames. Where the user has too many, the one that was silent longest makes room: it
// may be a ghost, whose client has long come again. It is out of the hub; the caller closes it.
func (h *hub) add(s *session) (displaced *session) {
	sh := h.shard(s.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[s.user]
	if u == nil {
		u = &user{id: s.user}
		sh.users[s.user] = u
	}
	if len(u.sessions) >= h.limit {
		i := quietest(u.sessions)
		displaced = u.sessions[i]
		u.sessions = append(u.sessions[:i:i], u.sessions[i+1:]...)
	}
	u.sessions = append(u.sessions, s)
	u.latest = s.id
	h.touch(u)
	return displaced
}

// quietest is the index of the session that was heard of least recently. One that lives answers pings, so this
// is a ghost if there is one, at the latest when a ping has gone round.
func quietest(sessions []*session) (least int) {
	for i, s := range sessions {
		if s.heard.Load() < sessions[least].heard.Load() {
			least = i
		}
	}
	return least
}

// remove is idempotent.
func (h *hub) remove(s *session) {
	sh := h.shard(s.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[s.user]
	if u == nil {
		return
	}
	for i, other := range u.sessions {
		if other == s {
			u.sessions = append(u.sessions[:i:i], u.sessions[i+1:]...)
			h.touch(u)
			return
		}
	}
}

func (h *hub) touch(u *user) {
	u.changedUS = h.stamp.next()
	h.mark(u)
}

// tellAll has everybody's state published, changed or not.
func (h *hub) tellAll() {
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.Lock()
		for _, u := range sh.users {
			if len(u.sessions) > 0 {
				h.touch(u)
			}
		}
		sh.mu.Unlock()
	}
}

// mark has the user's state published, changed or not.
func (h *hub) mark(u *user) {
	if !u.dirty {
		u.dirty = true
		h.changed(u)
	}
}

// find appends the sessions that a frame is for: all of the user's, or just one. Where there are none,
// bounceUS is the time of the bounce: now if the user has no session here; otherwise just before the
// user's presence, which the bounce must not contradict.
func (h *hub) find(into []*session, id, only string) (found []*session, bounceUS int64) {
	sh := h.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[id]
	if u == nil || len(u.sessions) == 0 {
		return into, h.stamp.next()
	}
	for _, s := range u.sessions {
		if only == "" || s.id == only {
			into = append(into, s)
		}
	}
	return into, u.changedUS - 1
}

// bounceUS is the time of a bounce that is decided now, as in find.
func (h *hub) bounceUS(id string) int64 {
	_, at := h.find(nil, id, "\x00") // no session has this name
	return at
}

// each calls f with every session that was there when its shard's turn came, without a lock.
func (h *hub) each(f func(*session)) {
	var all []*session
	for i := range h.shards {
		sh := &h.shards[i]
		all = all[:0]
		sh.mu.Lock()
		for _, u := range sh.users {
			all = append(all, u.sessions...)
		}
		sh.mu.Unlock()
		for _, s := range all {
			f(s)
		}
	}
}
