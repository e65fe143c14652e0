package ops

import (
	"context"
	"fmt"
	"net/http"
)

// BroadcastPace is how fast one dispatch process goes on with its broadcasts.
type BroadcastPace struct {
	// Limit is how many records a second they may cause now; 0: as many as there is room for.
	Limit float64 `json:"limit"`
	// PerSecond is what they caused last.
	PerSecond float64 `json:"per_second"`
	// ConnectedLimit and ConnectedPerSecond are the same in connected users.
	ConnectedLimit     float64 `json:"connected_limit"`
	ConnectedPerSecond float64 `json:"connected_per_second"`
	// HeldBy is what holds them back: nothing, alerts, kafka, gateways or bound.
	HeldBy string `json:"held_by"`
	// Words say the same.
	Words string `json:"words"`
}

// WithWords adds the words.
func (p BroadcastPace) WithWords() BroadcastPace {
	may := fmt.Sprintf("broadcasts may cause %.0f records/s and be sent to %.0f connected users/s", p.Limit, p.ConnectedLimit)
	switch p.HeldBy {
	case "alerts":
		p.Words = may + ", so that alerts don't wait for them"
	case "kafka":
		p.Words = fmt.Sprintf("broadcasts wait for Kafka, which acknowledges late; they cause %.0f records/s", p.PerSecond)
	case "gateways":
		p.Words = may + ", so that gateways don't give alerts to sockets late"
	case "bound":
		p.Words = fmt.Sprintf("broadcasts may cause %.0f records/s: --walk-records", p.Limit)
	default:
		p.Words = "nothing holds broadcasts back"
	}
	return p
}

// Pace adds a dispatch process's pace to /v1/health.
func (s *Server) Pace(now func() BroadcastPace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace = now
}

// Monitor makes /v1/health the whole system's.
func (s *Server) Monitor(m *HealthMonitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.monitor = m
}

// health answers with 200 and what this process knows: the whole system, its own pace, or both. What holds broadcasts back is no
// reason to say degraded.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	monitor, now := s.monitor, s.pace
	s.mu.Unlock()
	var pace *BroadcastPace
	if now != nil {
		p := now()
		pace = &p
	}
	switch {
	case monitor != nil:
		// The measurement is shared, so it goes on when the caller that began it hangs up.
		doc := monitor.Health(context.WithoutCancel(r.Context()))
		doc.BroadcastPace = pace
		answer(w, http.StatusOK, doc)
	case pace != nil:
		reasons := []string{}
		for name, reason := range s.Reasons() {
			reasons = append(reasons, name+": "+reason)
		}
		status := StatusHealthy
		if len(reasons) > 0 {
			status = StatusDegraded
		}
		answer(w, http.StatusOK, map[string]any{"status": status, "reasons": reasons, "broadcast_pace": pace})
	default:
		http.NotFound(w, r)
	}
}
