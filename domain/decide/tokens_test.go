package decide_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// phones are several partitions, the logs between them, and people who register phones, hand them on, remove them and are
// erased. A partition that crashes is made anew from its logs.
type phones struct {
	t     *rapid.T
	now   time.Time
	parts []*phonePart
	holds map[string]string // token → who registered it last, and has not removed it
}

type phonePart struct {
	state     *decide.State
	users     map[string]*whisperv1.Profile
	tokens    []decide.ClaimArrived
	tokensAt  int
	changes   []decide.ProfilePatched
	changesAt int
	committed int
	releasing []decide.Releasing // since the last commit
}

const phoneParts = 2

var phoneTokens = []string{"tok-a", "tok-b"}

func partOf(key string) int { return int(domain.HashDelivery(key, "")[0]) % phoneParts }

// start makes a partition anew from its logs.
func (w *phones) start(p *phonePart) {
	p.state, p.releasing = decide.NewState(0, decide.DefaultPolicy()), nil
	for user, profile := range p.users {
		encoded, err := proto.Marshal(profile)
		if err != nil {
			w.t.Fatal(err)
		}
		p.state.RestoreUser(user, encoded)
	}
	p.state.RestoreChangesFrom(int64(p.committed))
	for _, c := range p.tokens {
		p.state.RestoreClaim(c, w.now)
	}
	p.tokensAt, p.changesAt = len(p.tokens), p.committed
	p.state.ReplayDone()
	w.write(p, p.state.Resume(w.now), nil)
}

// write takes outputs. Where lost says so of a partition of a topic, its records are not written any more: the process
// comes to its end. Records of one partition keep their order, others have none.
func (w *phones) write(p *phonePart, outputs []decide.Output, lost func(log string) bool) {
	gone := map[string]bool{}
	ok := func(log string) bool {
		gone[log] = gone[log] || lost != nil && lost(log)
		return !gone[log]
	}
	claim := func(c decide.PutClaim) {
		to := partOf(string(c.Token[:]))
		if !ok(fmt.Sprint("tokens of ", to)) {
			return
		}
		in := decide.ClaimArrived{Token: c.Token, At: w.now}
		if c.Claim != nil {
			in.Claim = proto.CloneOf(c.Claim)
		}
		w.parts[to].tokens = append(w.parts[to].tokens, in)
	}
	for _, o := range outputs {
		switch o := o.(type) {
		case decide.PutUser:
			if ok("users") {
				if p.users[o.User] = proto.CloneOf(o.Profile); o.Profile == nil {
					delete(p.users, o.User)
				}
			}
			for _, c := range o.Claims {
				claim(c)
			}
		case decide.PutClaim:
			claim(o)
		case decide.Releasing:
			p.releasing = append(p.releasing, o)
		case decide.TokenMoved:
			if ok(fmt.Sprint("changes of ", partOf(o.User))) {
				w.change(o.User, o.Patch, &o.Moved)
			}
		case decide.Advanced, decide.Count, decide.Deliver, decide.Emit, decide.Finished, decide.Notice, decide.Park, decide.ParkAfter, decide.PushTo,
			decide.PutPresence, decide.Recall, decide.Reject, decide.Remember, decide.RouteTo, decide.Settle, decide.SliceTaken, decide.Steered,
			decide.Uncount, decide.Unpark: // nobody is sent anything here
		}
	}
}

func (w *phones) change(user string, patch []byte, moved *decide.Moved) {
	p := w.parts[partOf(user)]
	p.changes = append(p.changes, decide.ProfilePatched{User: user, Patch: patch, At: w.now, Offset: int64(len(p.changes)), Moved: moved})
}

func (w *phones) step(p *phonePart, changes bool, lost func(string) bool) {
	switch {
	case changes && p.changesAt < len(p.changes):
		p.changesAt++
		w.write(p, p.state.Decide(p.changes[p.changesAt-1], w.now), lost)
	case !changes && p.tokensAt < len(p.tokens):
		p.tokensAt++
		w.write(p, p.state.Decide(p.tokens[p.tokensAt-1], w.now), lost)
	}
}

// commit: all that was written is acknowledged.
func (w *phones) commit(p *phonePart) {
	p.committed = p.changesAt
	releasing := p.releasing
	p.releasing = nil
	for _, r := range releasing {
		w.write(p, p.state.Released(r), nil)
	}
}

// TestADeviceHasOneOwner whatever the order in which partitions get to hear of registrations, with crashes in between, and
// compaction that leaves a token's last record alone.
func TestADeviceHasOneOwner(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &phones{t: t, now: t0, holds: map[string]string{}}
		for range phoneParts {
			p := &phonePart{users: map[string]*whisperv1.Profile{}}
			w.parts = append(w.parts, p)
			w.start(p)
		}
		user := rapid.SampledFrom([]string{"alice", "bob", "carol"})
		token := rapid.SampledFrom(phoneTokens)
		part := rapid.IntRange(0, phoneParts-1)
		for range 4 {
			t.Repeat(map[string]func(*rapid.T){
				"register": func(t *rapid.T) {
					u, tok := user.Draw(t, "user"), token.Draw(t, "token")
					w.now = w.now.Add(time.Second)
					w.change(u, fmt.Appendf(nil, `{"endpoints":{"of-%s":{"channel":"apns","token":%q}}}`, tok, tok), nil)
					w.holds[tok] = u
				},
				"remove": func(t *rapid.T) {
					u, tok := user.Draw(t, "user"), token.Draw(t, "token")
					w.now = w.now.Add(time.Second)
					w.change(u, fmt.Appendf(nil, `{"endpoints":{"of-%s":null}}`, tok), nil)
					if w.holds[tok] == u {
						delete(w.holds, tok)
					}
				},
				"erase": func(t *rapid.T) {
					u := user.Draw(t, "user")
					w.now = w.now.Add(time.Second)
					w.change(u, nil, nil)
					maps.DeleteFunc(w.holds, func(_, of string) bool { return of == u })
				},
				"a change is taken": func(t *rapid.T) { w.step(w.parts[part.Draw(t, "part")], true, nil) },
				"a claim is taken":  func(t *rapid.T) { w.step(w.parts[part.Draw(t, "part")], false, nil) },
				"commit":            func(t *rapid.T) { w.commit(w.parts[part.Draw(t, "part")]) },
				"crash": func(t *rapid.T) {
					p := w.parts[part.Draw(t, "part")]
					w.step(p, rapid.Bool().Draw(t, "in a change"), func(log string) bool { return rapid.Bool().Draw(t, "lost: "+log) })
					w.start(p)
				},
				"a stray": func(t *rapid.T) { // of an owner who has lost its partition
					if p := w.parts[part.Draw(t, "part")]; len(p.tokens) > 0 {
						stray := rapid.SampledFrom(p.tokens).Draw(t, "record")
						stray.Stray = true
						p.tokens = append(p.tokens, stray)
					}
				},
				"compaction": func(t *rapid.T) { // what is older than a day
					w.settle() // nobody was down for longer
					w.now = w.now.Add(decide.ClaimsKept)
					for _, p := range w.parts {
						last := map[decide.TokenHash]int{}
						for i, c := range p.tokens {
							last[c.Token] = i
						}
						var kept []decide.ClaimArrived
						for i, c := range p.tokens {
							if last[c.Token] == i && c.Claim != nil {
								kept = append(kept, c)
							}
						}
						p.tokens, p.tokensAt = kept, len(kept)
					}
					for _, p := range w.parts { // what they write is too new to take part
						w.start(p)
					}
				},
			})
		}
		w.settle()
		w.check()
	})
}

func (w *phones) settle() {
	for range 400 {
		for _, p := range w.parts {
			w.step(p, true, nil)
			w.step(p, false, nil)
		}
	}
	for _, p := range w.parts {
		w.commit(p)
		if p.changesAt < len(p.changes) || p.tokensAt < len(p.tokens) {
			w.t.Fatal("the partitions keep on writing to each other")
		}
	}
}

// check: a token is in the profile of whoever registered it last, and of nobody else; the log of claims says the same,
// and after a while nothing of those who had it before.
func (w *phones) check() {
	got := map[string][]string{}
	for _, p := range w.parts {
		for user, profile := range p.users {
			if profile.GetErased() {
				w.t.Errorf("%s is erased, and has no tombstone", user)
			}
			for _, e := range profile.GetEndpoints() {
				got[e.GetToken()] = append(got[e.GetToken()], user)
			}
		}
	}
	for _, tok := range phoneTokens {
		var want []string
		if of, held := w.holds[tok]; held {
			want = []string{of}
		}
		if !slices.Equal(got[tok], want) {
			w.t.Errorf("%s is a phone of %v, registered last by %v", tok, got[tok], want)
		}
		if says := w.last(tok); says.GetUserId() != w.holds[tok] {
			w.t.Errorf("the log of claims ends with %v, registered last by %v", says, want)
		}
	}
	w.now = w.now.Add(decide.ClaimsKept + time.Second)
	for _, p := range w.parts {
		w.write(p, p.state.Decide(decide.TimePassed{}, w.now), nil)
	}
	w.settle()
	for _, tok := range phoneTokens {
		if says := w.last(tok); says.GetUserId() != w.holds[tok] || says.GetReleased() {
			w.t.Errorf("a day later the log of claims ends with %v, of %q", says, w.holds[tok])
		}
	}
}

// last is the claim that the log has of a token.
func (w *phones) last(token string) (last *whisperv1.TokenClaim) {
	hash := decide.HashToken("apns", token)
	for _, c := range w.parts[partOf(string(hash[:]))].tokens {
		if c.Token == hash {
			last = c.Claim
		}
	}
	return last
}

func TestOnePushADevice(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	two := `{"endpoints":{"new":{"channel":"apns","token":"same","app":"a"},"old":{"channel":"apns","token":"same","app":"a"},"other":{"channel":"apns","token":"same","app":"b"}}}`
	playSteps(t, s, []step{
		{0, decide.ProfilePatched{User: "mona", Patch: []byte(two), At: t0, Offset: 1}, []string{"put mona"}},
		{0, arrived("pay", "mona", 7, given{channels: []string{"push"}}), []string{"push pay #1 to new", "push pay #2 to other"}},
	})
}

// TestEndpointsOfAnEarlierVersionAreClaimed with their first push.
func TestEndpointsOfAnEarlierVersionAreClaimed(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	encoded, err := proto.Marshal(&whisperv1.Profile{Endpoints: []*whisperv1.Endpoint{
		{Name: "phone", Channel: "apns", Token: "t", RegisteredAtMs: 5}, {Name: "work", Channel: "email", Token: "m@example.com", RegisteredAtMs: 5},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.RestoreUser("mona", encoded)
	s.ReplayDone()
	for i, want := range []int{1, 0} {
		var claims []decide.PutClaim
		for _, o := range s.Decide(arrived(fmt.Sprint("pay", i), "mona", int64(i), given{channels: []string{"push"}}), at(1)) {
			if c, ok := o.(decide.PutClaim); ok {
				claims = append(claims, c)
			}
		}
		if len(claims) != want || want == 1 && (claims[0].Token != decide.HashToken("apns", "t") || claims[0].Claim.GetAtMs() != 5 ||
			claims[0].Claim.GetUserId() != "mona") {
			t.Errorf("push %d claims %v", i, claims)
		}
	}
}

func TestMovedHeader(t *testing.T) {
	t.Parallel()
	m := decide.Moved{Token: decide.HashToken("apns", "t"), AtMs: 7}
	if got, err := decide.ParseMoved(m.String()); err != nil || got != m {
		t.Errorf("%q is read as %v: %v", m, got, err)
	}
	for _, bad := range []string{
		"", "7", "zz 7", strings.Repeat("ab", 15) + " 7", strings.Repeat("ab", 16),
		strings.Repeat("ab", 16) + " -7",
	} {
		if _, err := decide.ParseMoved(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
