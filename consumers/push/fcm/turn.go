package fcm

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/pace"
	"github.com/klivvr/whisper/domain"
)

// ramp is how long the rate takes to rise: FCM asks for a minute at least.
const ramp = time.Minute

// maxTurn bounds the wait for a turn. The attempt keeps its place in flight meanwhile, which slows the reading of the topic
// down to the rate.
const maxTurn = 20 * time.Second

// line is where attempts of a project wait for their turn in its rate: one of them waits for the next turn and hands it to the
// most urgent of all who are there by then. So the lanes share one rate, and an alert waits for one turn at most.
type line struct {
	pacer *pace.Pacer

	mu      sync.Mutex
	waited  bool // somebody waits for the next turn
	waiting [len(domain.Lanes)][]*inLine
}

// inLine is who waits behind the one who waits for the next turn.
type inLine struct {
	called chan struct{}
	// Written before called is closed: it has a turn, or it is the one who waits for the next.
	turn bool
}

// turn waits for a turn. The result instead says that it is too far away: while the quota is used up, or after maxTurn. paced says
// that it had to wait. If ctx ends it returns as if it had a turn: the request ends with ctx.
func (l *line) turn(ctx context.Context, lane domain.Lane) (refused *push.Result, paced bool) {
	l.mu.Lock()
	if l.waited {
		w := &inLine{called: make(chan struct{})}
		l.waiting[lane] = append(l.waiting[lane], w)
		l.mu.Unlock()
		if refused, called := l.stand(ctx, lane, w); !called || w.turn {
			return refused, true
		}
		paced = true
	} else {
		l.waited = true
		l.mu.Unlock()
	}
	for {
		start := time.Now()
		wait, err := l.pacer.Wait(ctx)
		paced = paced || time.Since(start) > time.Millisecond
		if err == nil && wait == 0 && l.giveTo(lane) {
			continue // a more urgent one took the turn
		}
		l.next()
		if err != nil || wait == 0 {
			return nil, paced
		}
		reason := "paced"
		if l.pacer.Frozen() > 0 {
			reason = "quota"
		}
		return &push.Result{Class: retry, Reason: reason, RetryAfter: spread(max(wait, time.Second))}, true
	}
}

// stand waits to be called.
func (l *line) stand(ctx context.Context, lane domain.Lane, w *inLine) (refused *push.Result, called bool) {
	timer := time.NewTimer(maxTurn)
	defer timer.Stop()
	select {
	case <-w.called:
		return nil, true
	case <-ctx.Done():
	case <-timer.C:
		refused = &push.Result{Class: retry, Reason: "paced", RetryAfter: spread(time.Second)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting[lane], w); i >= 0 {
		l.waiting[lane] = slices.Delete(l.waiting[lane], i, i+1)
		return refused, false
	}
	return nil, true // it was called at the same moment
}

// giveTo hands a turn to the first of the lanes more urgent than this one.
func (l *line) giveTo(lane domain.Lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for urgent := range l.waiting[:lane] {
		if w := l.pop(urgent); w != nil {
			w.turn = true
			close(w.called)
			return true
		}
	}
	return false
}

// next has the most urgent one wait for the next turn.
func (l *line) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for lane := range l.waiting {
		if w := l.pop(lane); w != nil {
			close(w.called)
			return
		}
	}
	l.waited = false
}

func (l *line) pop(lane int) *inLine {
	if len(l.waiting[lane]) == 0 {
		return nil
	}
	w := l.waiting[lane][0]
	l.waiting[lane][0] = nil
	l.waiting[lane] = l.waiting[lane][1:]
	return w
}
