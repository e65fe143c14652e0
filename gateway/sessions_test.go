package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/klivvr/whisper/domain"
)

// askSessions asks as the operations port does.
func (n *node) askSessions(query string) (status int, page SessionsPage, text string) {
	n.t.Helper()
	w := httptest.NewRecorder()
	n.Sessions().ServeHTTP(w, httptest.NewRequestWithContext(n.t.Context(), http.MethodGet, SessionsPath+query, http.NoBody))
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			n.t.Fatal(err)
		}
	}
	return w.Code, page, w.Body.String()
}

func TestSessionsAreListed(t *testing.T) {
	eachLink(t, func(t *testing.T, link change) {
		n := setup(t, link)
		header := bearer(n.token("mona", time.Hour))
		header.Set("User-Agent", "bank-app/7")
		phone := n.dial("", header)
		phone.session = phone.frame()["session"].(string)
		page := n.connect("mona", "?ack=auto&client="+url.QueryEscape("page\x1b[2J \u202e"+strings.Repeat("x", 200)))
		n.connect("omar")
		n.broker.put(domain.High, route(n, "mona", "n-1"), route(n, "mona", "n-2"))
		phone.wantNotification("n-1")
		phone.wantNotification("n-2")
		phone.ack("n-1")
		of := map[string]SessionLine{}
		eventually(t, "n-1 is acknowledged", func() bool {
			_, got, _ := n.askSessions("?user=mona")
			for _, l := range got.Sessions {
				of[l.Session] = l
			}
			return of[phone.session].Unacknowledged == 1
		})
		status, got, text := n.askSessions("?user=mona")
		if status != http.StatusOK || got.Node != "n1" || got.Incarnation != n.incarnation.Load() || len(got.Sessions) != 2 || got.Next != "" {
			t.Fatalf("%d: %s", status, text)
		}
		now := n.clock.now()
		for _, l := range of {
			if l.User != "mona" || l.Network != "127.0.0.0/24" || now.Sub(l.Since) > 3*time.Minute || l.Since.After(now) ||
				l.ExpiresAt.Before(now.Add(50*time.Minute)) || l.HeardAt.Before(l.Since) {
				t.Errorf("got %+v", l)
			}
		}
		if l := of[phone.session]; l.Ack != "manual" || l.Unacknowledged != 1 || l.Client != "bank-app/7" {
			t.Errorf("the phone's is %+v", l)
		}
		if l := of[page.session]; l.Ack != "auto" || !strings.HasPrefix(l.Client, "page[2J x") || len(l.Client) != maxClientName {
			t.Errorf("the page's is %+v", l)
		}
		_ = phone.Close()
		eventually(t, "the phone's session is gone", func() bool {
			_, got, _ := n.askSessions("?user=mona")
			return len(got.Sessions) == 1
		})
	})
}

// A hundred thousand sessions come in pages, each of them once, while others come and go.
func TestALongListingHasEachSessionOnce(t *testing.T) {
	t.Parallel()
	const users = 50_000
	n := prepare(t)
	n.incarnation.Store(1)
	hold := func(user string) *session {
		s := &session{g: n.Gateway, id: randomID(), user: user}
		n.hub.add(s)
		return s
	}
	for i := range users {
		hold(fmt.Sprintf("user-%d", i))
		hold(fmt.Sprintf("user-%d", i))
	}
	for range 19 {
		hold("user-7")
	}
	seen := map[string]bool{}
	pages, after := 0, ""
	for {
		passing := hold(fmt.Sprintf("passing-%d", pages))
		status, page, text := n.askSessions("?limit=777&after=" + url.QueryEscape(after))
		if status != http.StatusOK || len(page.Sessions) > 777 {
			t.Fatalf("%d: %.300s", status, text)
		}
		n.hub.remove(passing)
		for _, l := range page.Sessions {
			if strings.HasPrefix(l.User, "passing") {
				continue
			}
			if seen[l.Session] {
				t.Fatalf("%s is there twice", l.Session)
			}
			seen[l.Session] = true
		}
		if pages++; page.Next == "" {
			break
		}
		after = page.Next
	}
	if want := 2*users + 18; len(seen) != want { // user-7 has 20 at most
		t.Errorf("%d sessions in %d pages, want %d", len(seen), pages, want)
	}
	if pages < 129 || pages > 140 {
		t.Errorf("%d pages", pages)
	}
}

func TestABadQueryForSessionsIsToldWhy(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	if status, _, text := n.askSessions(""); status != http.StatusServiceUnavailable || !strings.Contains(text, "starting") {
		t.Errorf("%d: %s", status, text)
	}
	n.start()
	old := place{"mona", "s"}.cursor(n.incarnation.Load() - 1)
	for query, want := range map[string]string{
		"?limit=0": "limit: must be a number from 1 to 1000", "?limit=1001": "limit:", "?limit=x": "limit:",
		"?user=": "user: ", "?user=a%00b": "user: ", "?usr=a": "usr: is not a parameter",
		"?after=%21": "after: is not", "?after=" + old: "after: the node has restarted",
	} {
		if status, _, text := n.askSessions(query); status != http.StatusBadRequest || !strings.Contains(text, want) {
			t.Errorf("%s: %d: %s", query, status, text)
		}
	}
}

func TestAddressesAreMasked(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"203.0.113.77": "203.0.113.0/24", "2001:db8:aaaa:bbbb::1": "2001:db8:aaaa::/48"} {
		if got := networkOf(countedAs(netip.MustParseAddr(addr))); got != want {
			t.Errorf("%s is shown as %s, want %s", addr, got, want)
		}
	}
	if got := networkOf(address{}); got != "" {
		t.Errorf("no address is shown as %q", got)
	}
}

// The size class after 448 is 480: 1.6 MB of a node with 50,000 sessions.
func TestASessionKeepsItsSize(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(session{}); size > 448 {
		t.Errorf("a session takes %d bytes at rest: see docs/design.md", size)
	}
}
