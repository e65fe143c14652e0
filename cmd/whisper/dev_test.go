package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections/query"
)

// stateFolder can be entered by the user that Postgres runs as when the tests run as root.
func stateFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "whisper-dev-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "state")
}

// running is a `whisper dev` that is up.
type running struct {
	stdout, stderr *written
	stop           func() int
}

// find is the first group of a pattern in what it said.
func (r running) find(t *testing.T, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(r.stdout.String())
	if m == nil {
		t.Fatalf("no %s in\n%s", pattern, r.stdout)
	}
	return m[1]
}

func startDev(t *testing.T, args ...string) running {
	t.Helper()
	args = append([]string{"dev", "--kafka-listen=127.0.0.1:0", "--postgres-listen=127.0.0.1:0", "--listen=127.0.0.1:0", "--ops-addr=127.0.0.1:0"}, args...)
	stdout, stderr, stop := background(t, nil, args...)
	r := running{stdout, stderr, stop}
	eventually(t, "whisper dev is up", func() bool {
		return strings.Contains(stdout.String(), "Ctrl-C stops it.") || strings.Contains(stderr.String(), "whisper dev:")
	})
	if strings.Contains(stderr.String(), "whisper dev:") {
		t.Fatal(stderr)
	}
	return r
}

func TestDevPlaysTheSceneAndKeepsItsState(t *testing.T) {
	t.Parallel()
	state := stateFolder(t)
	first := startDev(t, "--demo", "--state="+state)
	for _, pattern := range []string{
		`(mona's socket): high "Card payment: You paid EGP 120.50 at Cilantro" \([0-9.]+ ms after its request\)`,
		`(omar's socket): normal "Salary:`,
		`(lina's iPhone), by APNs: "Refund:`,
		`(delivery_accepted)`, `(delivery_delivered)`, `(delivery_read)`,
		`(mona's socket): low "أخبار: `, `(omar's socket): low "News: `, `(walked  demo-\S+)  looked at 100\d of 100\d: `,
		`All deliveries so far: (1000 deferred, .*1 read)`,
	} {
		first.find(t, pattern)
	}
	if code := first.stop(); code != exitOK || first.stderr.String() != "" {
		t.Errorf("exit code %d after Ctrl-C, and it said %q", code, first.stderr)
	}

	second := startDev(t, "--state="+state)
	postgres := "--postgres=" + second.find(t, `Postgres +(postgres://\S+)`)
	if got := lines(whisper(t, nil, "deliveries", "list", postgres, "--user=mona", "--json").stdout); len(got) != 2 {
		t.Errorf("yesterday's deliveries are %q", got)
	}
	if code := second.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestToolsWorkOnARunningSystem(t *testing.T) {
	t.Parallel()
	dev := startDev(t, "--ephemeral", "--partitions=3")
	kafka := "--kafka=" + dev.find(t, `Kafka +(\S+),`)
	socket := "--url=" + dev.find(t, `sockets +(\S+)`)
	postgres := "--postgres=" + dev.find(t, `Postgres +(postgres://\S+)`)
	operations := dev.find(t, `operations +(\S+)`)

	if got := whisper(t, nil, "health", "--probe", operations+"/readyz"); got.code != exitOK {
		t.Errorf("readyz: %s", got.stderr)
	}
	heard, _, _ := background(t, nil, "listen", "--user=mona", socket, "--json", "--read", "--count=1")
	eventually(t, "mona listens", func() bool { return strings.Contains(heard.String(), `"welcome"`) })
	if got := whisper(t, nil, "send", "--user=mona", "--user=omar", "--id=n-1", "--title=Hello", "--body=there", "--lane=high", kafka); got.stdout != "n-1\n" {
		t.Fatalf("send: %s%s", got.stdout, got.stderr)
	}
	eventually(t, "mona hears it", func() bool { return strings.Contains(heard.String(), `"title":"Hello"`) })
	n := decode[struct {
		Type, ID, Lane string
		At             time.Time `json:"at"`
		ReceivedAt     time.Time `json:"received_at"`
	}](t, lines(heard.String())[1])
	if n.Type != "notification" || n.ID != "n-1" || n.Lane != "high" || n.ReceivedAt.Before(n.At) {
		t.Errorf("heard %s", heard)
	}

	var delivery query.Delivery
	eventually(t, "Postgres has read it", func() bool {
		rows := lines(whisper(t, nil, "deliveries", "list", postgres, "--user=mona", "--status=read", "--json").stdout)
		if len(rows) == 1 {
			delivery = decode[query.Delivery](t, rows[0])
		}
		return len(rows) == 1
	})
	if got := whisper(t, nil, "deliveries", "show", delivery.DeliveryID, postgres); got.code != exitOK || !strings.Contains(got.stdout, "delivery_accepted") || !strings.Contains(got.stdout, "socket") {
		t.Errorf("show: %s%s", got.stdout, got.stderr)
	}
	// By the time that their writers gave them, so what dispatch thought meanwhile may stand last.
	story := whisper(t, nil, "events", "--delivery="+delivery.DeliveryID, kafka).stdout
	if !strings.Contains(lines(story)[0], "delivery_accepted") || !regexp.MustCompile(`delivery_read .* traceparent=00-`).MatchString(story) {
		t.Errorf("events:\n%s", story)
	}
	at, err := accepted(t, postgres, "n-1")
	if err != nil || !at.Equal(delivery.AcceptedAt) {
		t.Errorf("n-1 was accepted at %s, %v", at, err)
	}
	if got := whisper(t, nil, "events", "--notification=n-1", kafka, postgres); !strings.Contains(got.stdout, "delivery_read") || got.stderr != "" {
		t.Errorf("events of a notification: %s%s", got.stdout, got.stderr)
	}
	if got := whisper(t, nil, "health", "--url", operations+"/v1/health"); got.code != exitOK {
		t.Errorf("health: %s", got.stderr)
	} else if doc := decode[ops.Health](t, got.stdout); len(doc.Nodes) != 1 || doc.Nodes[0].Node != "dev" {
		t.Errorf("health: %s", got.stdout)
	}
	if got := whisper(t, nil, "migrate", "--check", postgres); got.code != exitOK {
		t.Errorf("migrate --check: %s", got.stderr)
	}
	// Dispatch's transactions leave markers, which no count of offsets can tell from facts.
	got := whisper(t, nil, "project", "--rebuild", "--dry-run", postgres, kafka, "--partitions=3")
	if got.code != exitOK || !strings.Contains(got.stdout, "offsets to read: ") || !strings.Contains(got.stdout, "offsets that kafka no longer has: 0 (facts, and markers of transactions)") {
		t.Errorf("rebuild --dry-run: %s%s", got.stdout, got.stderr)
	}
	got = whisper(t, nil, "project", "--rebuild", postgres, kafka, "--partitions=3")
	if got.code != exitOK || !strings.Contains(got.stdout, "the tables are rebuilt and served") {
		t.Errorf("rebuild: %s%s", got.stdout, got.stderr)
	}
}

func TestDevSaysWhatToDo(t *testing.T) {
	t.Parallel()
	busy, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := []string{"--ephemeral", "--kafka-listen=127.0.0.1:0", "--postgres-listen=127.0.0.1:0", "--listen=127.0.0.1:0", "--ops-addr=127.0.0.1:0"}
	tests := map[string]struct {
		args []string
		want []string
	}{
		"sockets":      {[]string{"--listen=" + busy.Addr().String()}, []string{busy.Addr().String() + " is in use", "--listen"}},
		"operations":   {[]string{"--ops-addr=" + busy.Addr().String()}, []string{busy.Addr().String() + " is in use", "--ops-addr"}},
		"kafka":        {[]string{"--kafka-listen=" + busy.Addr().String()}, []string{busy.Addr().String() + " is in use", "--kafka-listen"}},
		"postgres":     {[]string{"--postgres-listen=" + busy.Addr().String()}, []string{strconv.Itoa(busy.Addr().(*net.TCPAddr).Port), "is in use", "--postgres-listen"}},
		"state folder": {[]string{"--ephemeral=false", "--state=" + filepath.Join(file, "x")}, []string{"state folder " + file, "--state", "--ephemeral"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := whisper(t, nil, append(append([]string{"dev"}, free...), tt.args...)...)
			if got.code != exitError || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("exit code %d, want 1 and one line: %s", got.code, got.stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("%q does not say %q", got.stderr, want)
				}
			}
		})
	}
}

func accepted(t *testing.T, postgres, notification string) (time.Time, error) {
	t.Helper()
	r, err := query.Open(t.Context(), strings.TrimPrefix(postgres, "--postgres="))
	if err != nil {
		return time.Time{}, err
	}
	defer r.Close()
	return r.AcceptedAt(t.Context(), notification)
}
