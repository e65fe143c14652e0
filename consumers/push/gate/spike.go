package gate

import (
	"sync"
	"time"
)

// Spike distinguishes a burst of refused endpoints from the few that there always are: at least spikeMin of them in this
// minute or the one before, and a fifth of all answers. Then most likely we ask the wrong environment or with the wrong
// credential, and pruning those endpoints would remove most users' endpoints. The zero Spike is ready.
type Spike struct {
	mu            sync.Mutex
	minute        int64
	refused, all  [2]int // this minute, the one before
	suspectsUntil time.Time
}

const (
	spikeMin   = 10
	spikeShare = 0.2
	// SpikeRest is how long nothing is pruned after the last sign of a spike.
	SpikeRest = 10 * time.Minute
)

// Answered counts one answer. suspect says that this refusal is no reason to prune the endpoint; began says that the spike
// was noticed by this one.
func (s *Spike) Answered(refused bool, now time.Time) (suspect, began bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch minute := now.Unix() / 60; {
	case minute == s.minute+1:
		s.minute, s.refused, s.all = minute, [2]int{0, s.refused[0]}, [2]int{0, s.all[0]}
	case minute > s.minute+1:
		s.minute, s.refused, s.all = minute, [2]int{}, [2]int{}
	}
	s.all[0]++
	if !refused {
		return false, false
	}
	s.refused[0]++
	n := s.refused[0] + s.refused[1]
	if n >= spikeMin && float64(n) >= spikeShare*float64(s.all[0]+s.all[1]) {
		began = !now.Before(s.suspectsUntil)
		s.suspectsUntil = now.Add(SpikeRest)
	}
	return now.Before(s.suspectsUntil), began
}
