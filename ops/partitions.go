package ops

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// Partitions are what a role owns and may have to stop: a role, or a [consumers.Loop].
type Partitions interface {
	// Stopped lists the partitions that are stopped, with the reason of each.
	Stopped() []consumers.Stopped
	// Retry tries the stopped partitions again now and returns how many there are.
	Retry() int
}

// Partitions serves a component's stopped partitions with those of the others: GET /v1/partitions lists them, POST
// /v1/partitions/retry tries them again now. A second call with the same name replaces the first.
func (s *Server) Partitions(name string, p Partitions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions[name] = p
}

// stoppedIn is a stopped partition with the component that owns it.
type stoppedIn struct {
	Component string `json:"component"`
	consumers.Stopped
}

func (s *Server) parts() map[string]Partitions {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := make(map[string]Partitions, len(s.partitions))
	for name, p := range s.partitions {
		parts[name] = p
	}
	return parts
}

func (s *Server) listStopped(w http.ResponseWriter, _ *http.Request) {
	stopped := []stoppedIn{}
	for name, p := range s.parts() {
		for _, one := range p.Stopped() {
			stopped = append(stopped, stoppedIn{name, one})
		}
	}
	slices.SortFunc(stopped, func(a, b stoppedIn) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Group, b.Group),
			cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	answer(w, http.StatusOK, map[string]any{"stopped": stopped})
}

// retryStopped is for operators and scripts. A page that somebody has open on the same machine must not reach it.
func (s *Server) retryStopped(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") != "" || cmp.Or(r.Header.Get("Sec-Fetch-Site"), "none") != "none" {
		answer(w, http.StatusForbidden, map[string]string{"error": "not for browsers: send it with curl, without an Origin"})
		return
	}
	tried := 0
	for _, p := range s.parts() {
		tried += p.Retry()
	}
	answer(w, http.StatusOK, map[string]int{"tried": tried})
}

// stopGroups are the groups whose commits may say that a partition is stopped.
func (m *HealthMonitor) stopGroups() []string {
	groups := []string{m.cfg.IntakeGroup, m.cfg.DispatchGroup}
	for _, channel := range domain.PushChannels {
		for _, lane := range domain.Lanes {
			groups = append(groups, "whisper-push-"+channel+"-"+lane.String())
		}
	}
	return groups
}

// stopped lists the stopped partitions of all processes: the metadata of their last commit says that they are.
func (m *HealthMonitor) stopped(ctx context.Context, doc *Health) {
	var reasons []string
	for _, group := range m.adm.FetchManyOffsets(ctx, m.stopGroups()...) {
		if group.Err != nil {
			continue // a group that does not exist stops nothing; an unreachable Kafka is reported elsewhere
		}
		group.Fetched.Each(func(o kadm.OffsetResponse) {
			if reason, is := strings.CutPrefix(o.Metadata, consumers.StopMetadata); is && o.Err == nil {
				reasons = append(reasons, fmt.Sprintf("group %s: partition %s/%d is stopped: %s", group.Group, o.Topic, o.Partition, reason))
			}
		})
	}
	slices.Sort(reasons)
	if more := len(reasons) - maxStopReasons; more > 0 {
		reasons = append(reasons[:maxStopReasons], fmt.Sprintf("and %d more partitions are stopped", more))
	}
	doc.Reasons = append(doc.Reasons, reasons...)
}

// maxStopReasons keeps the document readable where one cause stops many partitions.
const maxStopReasons = 10
