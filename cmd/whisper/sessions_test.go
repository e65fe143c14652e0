package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/gateway/client"
)

const sessionsSecret = "a secret of tests, thirty-two bytes or more"

// startGateway runs a gateway and returns where its sockets are.
func (b *broker) startGateway(t *testing.T, node string, more ...string) (sockets string) {
	t.Helper()
	sockets, opsAddr := freeAddr(t), freeAddr(t)
	_, stderr, _ := background(t, []string{"WHISPER_AUTH_SECRET=" + sessionsSecret, "WHISPER_KAFKA=" + b.addr}, append([]string{
		"gateway", "--partitions=3", "--node=" + node, "--listen=" + sockets, "--ops-addr=" + opsAddr, "--drain=1s",
	}, more...)...)
	eventually(t, node+" is ready", func() bool {
		status, _, err := get(t, "http://"+opsAddr+"/readyz")
		if t.Failed() {
			t.Log(stderr.String())
		}
		return err == nil && status == http.StatusOK
	})
	return sockets
}

func connectAs(t *testing.T, sockets, user string) (session string) {
	t.Helper()
	token, err := gateway.SignToken([]byte(sessionsSecret), user, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	welcomed := make(chan string, 1)
	c, err := client.Dial(ctx, "ws://"+sockets+"/v1/socket", client.StaticToken(token), client.Options{
		Handle:    func(context.Context, client.Notification) error { return nil },
		Connected: func(session string) { welcomed <- session },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-c.Done() })
	return <-welcomed
}

// listedSession is what `whisper sessions --json` prints.
type listedSession struct {
	Node        string
	Incarnation uint64
	gateway.SessionLine
}

func TestSessionsOfAllGatewaysAreListed(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	if got := b.whisper(t, "sessions"); got != "no sessions\n" {
		t.Errorf("got %q", got)
	}
	eu1, eu2 := b.startGateway(t, "eu-1"), b.startGateway(t, "eu-2")
	first := connectAs(t, eu1, "mona")
	second := connectAs(t, eu2, "mona")
	connectAs(t, eu2, "omar")

	table := lines(b.whisper(t, "sessions", "--user=mona"))
	if len(table) != 3 || strings.Join(strings.Fields(table[0]), " ") != "NODE USER SESSION SINCE NETWORK ACK UNACKED CLIENT" {
		t.Fatalf("got %q", table)
	}
	for i, want := range []string{"eu-1 mona " + first + " 20", "eu-2 mona " + second + " 20"} {
		got := strings.Join(strings.Fields(strings.Join(table[1:], "\n")), " ")
		if !strings.Contains(got, want) || !strings.Contains(table[i+1], "127.0.0.0/24  manual") || !strings.Contains(table[i+1], "whisper-go") {
			t.Errorf("got %q, want %q in it", table, want)
		}
	}
	docs := lines(b.whisper(t, "sessions", "--node=eu-2", "--json"))
	if len(docs) != 2 {
		t.Fatalf("got %q", docs)
	}
	if l := decode[listedSession](t, docs[0]); l.Node != "eu-2" || l.Incarnation == 0 || l.Ack != "manual" || l.Since.IsZero() {
		t.Errorf("got %+v", l)
	}
	if got := lines(b.whisper(t, "sessions", "--limit=1")); len(got) != 3 || got[2] != "and more: these are 1; --limit 0 lists all" {
		t.Errorf("got %q", got)
	}
	if got := lines(b.whisper(t, "sessions", "--limit=0")); len(got) < 4 {
		t.Errorf("got %q", got)
	}
	// One of them is ended, and its client comes again with another session or not at all.
	b.whisper(t, "revoke", "--user=mona", "--session="+first)
	eventually(t, "the session is gone", func() bool { return !strings.Contains(b.whisper(t, "sessions", "--user=mona"), first) })
	if got := b.whisper(t, "sessions", "--user=mona"); !strings.Contains(got, second) {
		t.Errorf("the other one went, too: %s", got)
	}
}

// What can't be asked is named, with what to do, and the rest is listed all the same.
func TestSessionsOfNodesThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sockets := b.startGateway(t, "eu-1")
	connectAs(t, sockets, "mona")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved" + gateway.SessionsPath:
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/old" + gateway.SessionsPath:
			http.NotFound(w, r)
		case "/endless" + gateway.SessionsPath:
			_, _ = fmt.Fprint(w, `{"node":"another","incarnation":1,"sessions":[{"user":"mona"}],"next":"x"}`)
		case "/empty" + gateway.SessionsPath:
			_, _ = fmt.Fprint(w, `{"node":"another","incarnation":1,"sessions":[],"next":"x"}`)
		case "/odd" + gateway.SessionsPath:
			_, _ = fmt.Fprint(w, "\x1b]0;owned\x07")
		default:
			_, _ = fmt.Fprint(w, `{"node":"another","incarnation":1,"sessions":[{"user":"a\u001b[2J","client":"\u202edesrever"}]}`)
		}
	}))
	t.Cleanup(other.Close)
	const minute = 60_000
	b.heartbeat(t, &whisperv1.Node{Node: "old", Limit: 50, HeartbeatMs: minute}, 0)
	b.heartbeat(t, &whisperv1.Node{Node: "dead", Limit: 50, OpsAddr: freeAddr(t)}, time.Minute)
	b.heartbeat(t, &whisperv1.Node{Node: "shared", Limit: 50, HeartbeatMs: minute, OpsAddr: strings.TrimPrefix(other.URL, "http://")}, 0)
	for i, addr := range []string{"127.0.0.1:80/admin?", "u:p@127.0.0.1:80", "127.0.0.1/#:80", "127.0.0.1:http", "nowhere"} {
		b.heartbeat(t, &whisperv1.Node{Node: fmt.Sprint("elsewhere-", i), Limit: 50, HeartbeatMs: minute, OpsAddr: addr}, 0)
	}
	b.heartbeat(t, &whisperv1.Node{Node: "gone", Limit: 50, OpsAddr: freeAddr(t)}, 2*time.Hour)

	got := whisper(t, []string{"WHISPER_KAFKA=" + b.addr}, "sessions")
	if got.code != exitError || len(lines(got.stdout)) != 2 || !strings.Contains(got.stdout, "mona") {
		t.Errorf("exit code %d, %s", got.code, got.stdout)
	}
	for _, want := range []string{
		"the list is not complete", "node old: its heartbeat does not say where its operations port is", "node dead at http://127.0.0.1:", "the node's own machine",
		"node another answers there",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("%q is not in %s", want, got.stderr)
		}
	}
	if n := strings.Count(got.stderr, "is not host:port"); n != 5 {
		t.Errorf("%d of 5 addresses are refused: %s", n, got.stderr)
	}
	if strings.Contains(got.stderr, "gone") {
		t.Errorf("a node that is gone was asked: %s", got.stderr)
	}
	for query, want := range map[string]string{
		"--at=" + other.URL + "/endless": "the same page again", "--at=" + other.URL + "/empty": "the same page again",
		"--node=nobody": "whisper.nodes does not know it", "--at=" + other.URL + "/old": "has no list of sessions",
		"--at=" + other.URL + "/moved": "it answers 302", "--at=" + other.URL + "/odd": "is not a list of sessions",
	} {
		if got := whisper(t, []string{"WHISPER_KAFKA=" + b.addr}, "sessions", query); got.code != exitError ||
			!strings.Contains(got.stderr, want) || strings.ContainsRune(got.stdout+got.stderr, 0x1b) {
			t.Errorf("%s: exit code %d, %q", query, got.code, got.stderr)
		}
	}
	if got := b.whisper(t, "sessions", "--at="+other.URL); !strings.Contains(got, `a\u001b[2J`) || !strings.Contains(got, `\u202edesrever`) {
		t.Errorf("a terminal gets %q", got)
	}
	if got := whisper(t, nil, "sessions", "--at=nowhere", "--limit=-1", "--user=a\x00"); got.code != exitUsage ||
		strings.Count(got.stderr, "\n") != 5 {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}
