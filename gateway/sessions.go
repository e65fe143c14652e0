package gateway

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/klivvr/whisper/domain"
)

// SessionsPath is where the operations port serves Sessions.
const SessionsPath = "/v1/sessions"

// MaxSessionsPage bounds the sessions of one page: some 300 KB.
const MaxSessionsPage = 1000

// SessionsPage is what Sessions answers: some of the node's open sessions.
type SessionsPage struct {
	Node        string        `json:"node"`
	Incarnation uint64        `json:"incarnation"`
	Sessions    []SessionLine `json:"sessions"`
	// Next is the parameter after of the next page; empty: this is the last.
	Next string `json:"next,omitempty"`
}

// SessionLine is one open socket, as operators see it.
type SessionLine struct {
	User    string    `json:"user"`
	Session string    `json:"session"` // as in the welcome frame
	Since   time.Time `json:"since"`
	HeardAt time.Time `json:"heard_at"` // the last frame or pong
	// ExpiresAt is when the token ends, and the session with it unless it is refreshed.
	ExpiresAt time.Time `json:"expires_at"`
	// Network is the client's /24 (IPv4) or /48 (IPv6): enough to tell a region or an office, not a home.
	Network string `json:"network,omitempty"`
	// Client is what the client calls itself; empty: it does not say.
	Client string `json:"client,omitempty"`
	// Ack is manual or auto.
	Ack string `json:"ack"`
	// Unacknowledged are the deliveries that it was sent, or that wait to be written, and has not acknowledged.
	Unacknowledged int `json:"unacknowledged"`
}

// Sessions lists the open sessions: for the operations port, since it names users. GET with the parameters user
// (only theirs), limit (at most MaxSessionsPage, which is also the default) and after (Next of the page before). A page
// looks at one of the hub's 64 shards at a time, and holds up that one for as long as it takes to copy pointers. A
// session that is open during the whole listing is in it once; of those that come and go meanwhile, some are.
func (g *Gateway) Sessions() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := g.sessionsQuery(r)
		if err != nil {
			answerJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		if g.incarnation.Load() == 0 {
			answerJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "the gateway is starting"})
			return
		}
		answerJSON(w, http.StatusOK, g.sessionsPage(q))
	})
}

func answerJSON(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff") // no page may take it for a script
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc) // a caller who left is no error of ours
}

type sessionsQuery struct {
	user  string
	limit int
	after place
}

// place is a session's in the listing: by shard, user and id.
type place struct{ user, session string }

// cursor is the place as the parameter after. It counts for one incarnation, since another one has other shards.
func (p place) cursor(incarnation uint64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatUint(incarnation, 10) + "\x00" + p.user + "\x00" + p.session))
}

func (g *Gateway) sessionsQuery(r *http.Request) (q sessionsQuery, err error) {
	var errs []error
	q.limit = MaxSessionsPage
	for name, values := range r.URL.Query() {
		value := values[0]
		switch name {
		case "user":
			q.user = value
			if err := domain.CheckKnownID(value); err != nil {
				errs = append(errs, fmt.Errorf("user: %w", err))
			}
		case "limit":
			if q.limit, err = strconv.Atoi(value); err != nil || q.limit < 1 || q.limit > MaxSessionsPage {
				errs = append(errs, fmt.Errorf("limit: must be a number from 1 to %d", MaxSessionsPage))
			}
		case "after":
			if value == "" {
				continue // the first page
			}
			text, err := base64.RawURLEncoding.DecodeString(value)
			parts := strings.Split(string(text), "\x00")
			switch {
			case err != nil || len(parts) != 3:
				errs = append(errs, errors.New("after: is not valid: give the next of an earlier page"))
			case parts[0] != strconv.FormatUint(g.incarnation.Load(), 10):
				errs = append(errs, errors.New("after: the node has restarted since that page: begin again without after"))
			default:
				q.after = place{parts[1], parts[2]}
			}
		default:
			errs = append(errs, fmt.Errorf("%s: is not a parameter: there are user, limit and after", name))
		}
	}
	return q, errors.Join(errs...)
}

func (g *Gateway) sessionsPage(q sessionsQuery) SessionsPage {
	incarnation := g.incarnation.Load()
	page := SessionsPage{Node: g.cfg.Node, Incarnation: incarnation, Sessions: []SessionLine{}}
	found := g.hub.list(q.user, q.after, q.limit+1)
	if len(found) > q.limit {
		found = found[:q.limit]
		last := found[q.limit-1]
		page.Next = place{last.user, last.id}.cursor(incarnation)
	}
	drift := g.drift()
	for _, s := range found {
		page.Sessions = append(page.Sessions, s.line(drift))
	}
	return page
}

// list is at most limit open sessions after a place, shard by shard, within one by user and id.
func (h *hub) list(only string, after place, limit int) (found []*session) {
	from, to := 0, shards
	if only != "" {
		from = h.shardIndex(only)
		to = from + 1
	} else if after.user != "" {
		from = h.shardIndex(after.user)
	}
	for i := from; i < to && len(found) < limit; i++ {
		own := h.shards[i].sessions(only)
		slices.SortFunc(own, func(a, b *session) int {
			return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.id, b.id))
		})
		if i == from && after.user != "" {
			first, _ := slices.BinarySearchFunc(own, after, func(s *session, p place) int {
				return cmp.Or(cmp.Compare(s.user, p.user), cmp.Compare(s.id, p.session), -1) // behind the place itself
			})
			own = own[first:]
		}
		found = append(found, own[:min(len(own), limit-len(found))]...)
	}
	return found
}

func (sh *shard) sessions(only string) (all []*session) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if only != "" {
		if u := sh.users[only]; u != nil {
			all = append(all, u.sessions...)
		}
		return all
	}
	all = make([]*session, 0, len(sh.users))
	for _, u := range sh.users {
		all = append(all, u.sessions...)
	}
	return all
}

// line is what is told of the session; drift is how far the wall's clock is ahead of Gateway.now.
func (s *session) line(drift int64) SessionLine {
	wall := func(ns int64) time.Time { return time.Unix(0, ns).UTC().Truncate(time.Millisecond) }
	s.mu.Lock()
	defer s.mu.Unlock()
	l := SessionLine{
		User: s.user, Session: s.id, Network: networkOf(s.address), Ack: "manual", Unacknowledged: s.unacked.len(),
		Since:     wall(s.g.began.Add(time.Duration(s.since)*time.Second).UnixNano() + drift),
		HeardAt:   wall(s.heard.Load() + drift),
		ExpiresAt: wall(s.expires),
	}
	if s.client != (unique.Handle[string]{}) {
		l.Client = s.client.Value()
	}
	if s.auto {
		l.Ack = "auto"
	}
	return l
}

// networkOf masks an address.
func networkOf(a address) string {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil || !a.IsValid() {
		return ""
	}
	return netip.PrefixFrom(p.Addr(), bits).String()
}

// maxClientName bounds what a client may call itself, which is kept with its session.
const maxClientName = 64

// optionsOf reads what a client asks of its session, and what it calls itself: the parameter client, since pages can
// set no header, else User-Agent.
func optionsOf(r *http.Request) (auto bool, client unique.Handle[string]) {
	name := r.UserAgent()
	if r.URL.RawQuery != "" {
		q := r.URL.Query()
		auto = q.Get("ack") == "auto"
		name = cmp.Or(q.Get("client"), name)
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, name[:min(len(name), 4*maxClientName)])
	if name = strings.TrimSpace(name[:min(len(name), maxClientName)]); name == "" {
		return auto, client
	}
	return auto, unique.Make(strings.Clone(name)) // many sessions share one text
}
