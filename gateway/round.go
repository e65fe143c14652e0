package gateway

import "sync/atomic"

// round is how far whoever reads has come. Reading may wait, for Kafka above all: an acknowledgement is a
// fact, and while Kafka takes none, the sockets are where the clients' words wait, since nothing else is
// bounded for free. Meanwhile nobody may be blamed for a silence that is ours.
//
// A round begins with a look at what the sockets have and ends when all of it is read.
type round struct {
	since atomic.Int64 // when the round under way began; 0: nothing is left to read
	seen  int          // sockets read in it
}

// begin starts a round, unless one is under way.
func (r *round) begin(now int64) {
	if r.since.Load() == 0 {
		r.since.Store(max(now, 1))
	}
}

// passed counts what was read. The round is over when that was all there was, or as many as there are: the
// kernel has them take turns.
func (r *round) passed(n int, all bool, places int) {
	if r.seen += n; all || r.seen >= places {
		r.idle()
	}
}

func (r *round) idle() {
	r.seen = 0
	r.since.Store(0)
}

// covers says that what was there at a time has been read.
func (r *round) covers(at int64) bool {
	since := r.since.Load()
	return since == 0 || since > at
}
