package ops

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A dispatch process says on /v1/health how fast its broadcasts go and why; a process without one has no such page.
func TestHealthSaysWhatHoldsBroadcastsBack(t *testing.T) {
	t.Parallel()
	s, err := Listen(t.Context(), Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.Component("dispatch", func() error { return nil })
	ask := func() *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/v1/health", nil)
		s.mux.ServeHTTP(rec, req)
		return rec
	}
	if got := ask().Code; got != http.StatusNotFound {
		t.Fatalf("a process that knows nothing of it answers %d", got)
	}
	for heldBy, words := range map[string]string{
		"nothing": "nothing holds broadcasts back", "alerts": "5000 records/s and be sent to 700 connected users/s, so that alerts don't wait",
		"gateways": "700 connected users/s, so that gateways", "kafka": "wait for Kafka", "bound": "5000 records/s: --walk-records",
	} {
		s.Pace(func() BroadcastPace {
			return BroadcastPace{Limit: 5_000, PerSecond: 4_000, ConnectedLimit: 700, HeldBy: heldBy}.WithWords()
		})
		var doc struct {
			Status string        `json:"status"`
			Pace   BroadcastPace `json:"broadcast_pace"`
		}
		if err := json.Unmarshal(ask().Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Status != StatusHealthy || doc.Pace.HeldBy != heldBy || doc.Pace.Limit != 5_000 || doc.Pace.ConnectedLimit != 700 || !strings.Contains(doc.Pace.Words, words) {
			t.Errorf("%s: %+v", heldBy, doc)
		}
	}
}
