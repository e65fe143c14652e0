package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klivvr/whisper/ops"
)

// serve starts a server on a free port and stops it with the test.
func serve(t *testing.T, cfg ops.Config) *ops.Server {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	s, err := ops.Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *ops.Server, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestReadyzNamesWhatIsNotReady(t *testing.T) {
	t.Parallel()
	s := serve(t, ops.Config{})
	reasons := func() map[string]string {
		t.Helper()
		status, body := get(t, s, "/readyz")
		var doc struct {
			Status  string
			Reasons map[string]string
		}
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Fatal(err)
		}
		if (status == http.StatusOK) != (len(doc.Reasons) == 0) || (doc.Status == "ready") != (status == http.StatusOK) {
			t.Fatalf("%d with %s", status, body)
		}
		return doc.Reasons
	}

	if got := reasons(); got["process"] == "" {
		t.Errorf("a server without components says %v, want that the process is starting", got)
	}
	missing := errors.New("restoring partition 3")
	s.Component("dispatch", func() error { return missing })
	s.Component("gateway", func() error { return nil })
	if got := reasons(); len(got) != 1 || got["dispatch"] != "restoring partition 3" {
		t.Errorf("reasons are %v", got)
	}
	s.Component("dispatch", func() error { return nil })
	if got := reasons(); len(got) != 0 {
		t.Errorf("everything is ready, but the reasons are %v", got)
	}
	if status, _ := get(t, s, "/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d", status)
	}
}

func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	status, body := get(t, serve(t, ops.Config{}), "/metrics")
	if status != http.StatusOK || !strings.Contains(body, "process_resident_memory_bytes") {
		t.Errorf("/metrics answers %d without the process's memory", status)
	}
}

func TestProfilesAreOffUnlessAskedFor(t *testing.T) {
	t.Parallel()
	if status, _ := get(t, serve(t, ops.Config{}), "/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("/debug/pprof/ answers %d by default", status)
	}
	if status, _ := get(t, serve(t, ops.Config{Pprof: true}), "/debug/pprof/"); status != http.StatusOK {
		t.Errorf("/debug/pprof/ answers %d when it is asked for", status)
	}
}

func TestABusyPortIsOneClearSentence(t *testing.T) {
	t.Parallel()
	s := serve(t, ops.Config{})
	_, err := ops.Listen(t.Context(), ops.Config{Addr: s.Addr()})
	if err == nil || !strings.Contains(err.Error(), s.Addr()+" is in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
}
