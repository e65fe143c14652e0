package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSocketsSoak is a day of connections in some seconds: thousands that are used well, badly or not at all, and end in
// every way. Afterwards the gateway has as many goroutines, descriptors and bytes as before, and every notification
// arrived in the end.
func TestSocketsSoak(t *testing.T) {
	const node, prefix, rounds, workers, perSecond = "gateway-soak", "socks-soak", 4, 48, 400
	if err := sys.up(
		t.Context(), node, "--pprof", "--ping-interval", "1s", "--pong-timeout", "500ms", "--handshake-timeout", "1s", "--write-timeout", "1s",
		"--send-buffer", "65536", "--max-per-user", strconv.Itoa(soakPerUser), "--admit-rate", "100000", "--max-connections", "5000",
	); err != nil {
		t.Fatal(err)
	}
	p := sys.proc(node)
	t.Cleanup(func() { sys.remove(t, node) })
	s := &soak{t: t, prefix: prefix, url: sys.socketURL(node), proc: p, acked: map[string]bool{}}
	var first, last footprint
	began := time.Now()
	for round := range rounds {
		var work sync.WaitGroup
		next := make(chan int)
		for range workers {
			work.Go(func() {
				for i := range next {
					s.cycle(i)
				}
			})
		}
		// While they come and go they are sent something: to most users a little, to slow ones more than they take.
		work.Go(func() { flood(t, fmt.Sprintf("%s-%d", prefix, round), s.users(), 2*perSecond, perSecond) })
		work.Go(func() { s.slowOnes(round) })
		for i := range soakRound {
			next <- round*soakRound + i
		}
		close(next)
		work.Wait()
		eventually(t, "the gateway is at rest", func() bool {
			return metricOf(t, p, "whisper_gateway_connections") == 0 && lagOf(t, "whisper.node."+node) == 0
		})
		if round == 0 { // it filled pools, tables and the Kafka client's buffers
			first = footprintOf(t, p)
		}
	}
	t.Logf("%d cycles in %v", rounds*soakRound, took(began))
	s.sawEverything()
	if !within(time.Minute, func() bool { last = footprintOf(t, p); return last.within(first) }) {
		t.Errorf("the gateway has grown; its goroutines:\n%s", get(t, p, "/debug/pprof/goroutine?debug=1"))
	}
	t.Logf("after %d cycles %+v, after %d cycles %+v", soakRound, first, rounds*soakRound, last)

	sent := rounds * (2*perSecond + slowUsers*forSlow)
	a := nobody(t)
	for _, user := range append(s.users(), s.slowNames()...) {
		a.device(user, "gateway-1")
	}
	eventually(t, "everybody has everything", func() bool { return a.count() >= sent-s.acknowledged() })
	allSettled(t, prefix, sent)
}

// soakRound is the number of cycles of a round. The first round gives the values that the others are compared with.
const soakRound = 1_000

// footprint is what must not grow with the number of past connections.
type footprint struct {
	Goroutines, Files int
	Heap              int64 // bytes in use after collections
}

// What may differ: two connections of the Kafka client, which come and go, with two goroutines each; and the heap by 64 bytes for each cycle between, less than an entry in a map and a fifth of a session. A
// run differs by some 5 to 20 bytes.
const (
	spareGoroutines = 4
	spareFiles      = 2
	spareHeap       = 3 * soakRound * 64
)

func (f footprint) within(before footprint) bool {
	return f.Goroutines <= before.Goroutines+spareGoroutines && f.Files <= before.Files+spareFiles && f.Heap <= before.Heap+spareHeap
}

var (
	goroutines = regexp.MustCompile(`goroutine profile: total (\d+)`)
	heapInUse  = regexp.MustCompile(`# HeapAlloc = (\d+)`)
)

func footprintOf(t *testing.T, p *proc) footprint {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	f := footprint{Files: len(files), Goroutines: int(find(t, p, goroutines, "/debug/pprof/goroutine?debug=1"))}
	for range 3 { // what pools hold lives through one collection more
		f.Heap = find(t, p, heapInUse, "/debug/pprof/heap?gc=1&debug=1")
	}
	return f
}

func find(t *testing.T, p *proc, what *regexp.Regexp, path string) int64 {
	t.Helper()
	found := what.FindStringSubmatch(get(t, p, path))
	if found == nil {
		t.Fatalf("%s does not say %s", path, what)
	}
	n, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// get asks the operations port, on a connection of its own: one kept would count as the gateway's.
func get(t *testing.T, p *proc, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.ops+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// metricOf returns a metric's value, 0 if it is missing.
func metricOf(t *testing.T, p *proc, name string) float64 {
	t.Helper()
	for line := range strings.Lines(get(t, p, "/metrics")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
