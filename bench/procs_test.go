package bench

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestThePartsOfAProcessAddUp(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc")
	}
	used := map[string]time.Duration{}
	if err := addBroker(used, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	before := used[cpuBroker] // a test has no thread of a JVM's
	if err := addBroker(used, os.Getpid()); err != nil || used[cpuBroker] < 2*before || used[cpuCompiler] != 0 {
		t.Errorf("%v, %v", used, err)
	}
	if addBroker(used, -1) == nil {
		t.Error("a process that does not exist has CPU time")
	}
}

func TestAStatFileIsReadWhateverTheName(t *testing.T) {
	t.Parallel()
	line := "7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0"
	if d, err := cpuIn([]byte(line)); err != nil || d != 2*time.Second {
		t.Errorf("%s, %v", d, err)
	}
	for _, broken := range []string{"", "7 (a", "7 (a) S 1 2", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x y 0"} {
		if _, err := cpuIn([]byte(broken)); err == nil {
			t.Errorf("%q has CPU time", broken)
		}
	}
}

func TestAnOperationsPortIsRead(t *testing.T) {
	t.Parallel()
	pages := map[string]string{
		"/metrics": "# HELP a_total text\n# TYPE a_total counter\na_total 3\n" +
			"whisper_kafka_requests_by_kind_total{kind=\"fetch\"} 12\nb{x=\"with space\"} 1e+06\n",
		"/debug/pprof/profile": "a profile",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(page))
	}))
	defer server.Close()
	p := &process{name: "gateway", ops: strings.TrimPrefix(server.URL, "http://")}
	metrics, err := p.metrics(t.Context())
	if err != nil || metrics["a_total"] != 3 || metrics[`b{x="with space"}`] != 1e6 || len(metrics) != 3 {
		t.Errorf("%v, %v", metrics, err)
	}
	kinds, err := p.kafkaRequests(t.Context())
	if err != nil || kinds["fetch"] != 12 || len(kinds) != 1 {
		t.Errorf("%v, %v", kinds, err)
	}
	if _, err := p.get(t.Context(), "/nothing"); err == nil || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("a page that is not there: %v", err)
	}

	var said strings.Builder
	folder := filepath.Join(t.TempDir(), "of", "profiles") // which nobody has made
	s := Settings{Profiles: folder, Out: &said}
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	s.profile(t.Context(), 0, map[string]*process{"gateway-0": p})()
	got, err := os.ReadFile(filepath.Join(folder, "gateway-0.pprof"))
	if err != nil || string(got) != "a profile" || said.Len() > 0 {
		t.Errorf("%q, %v; said %q", got, err, said.String())
	}
}

func TestRecoveryCountsWhatIsLostAsWaiting(t *testing.T) {
	t.Parallel()
	l := newLatencies(3)
	begin := time.Now().Add(-time.Minute)
	for i := range 3 {
		l.send(i, begin.Add(time.Duration(i)*time.Second))
	}
	l.arrive(1, begin.Add(4*time.Second))
	l.arrive(0, begin.Add(time.Second/2))
	r := l.recovered(time.Second)
	if r.Lost != 1 || r.Late < 0.66 || r.Late > 0.67 || r.LongestWait < 57_999 || r.LongestGap < 55_999 {
		t.Errorf("%+v", r)
	}
	l.arrive(2, begin.Add(5*time.Second))
	if r := l.recovered(time.Second); r.Lost != 0 || r.LongestWait != 3_000 || r.LongestGap != 3_500 {
		t.Errorf("%+v", r)
	}
}
