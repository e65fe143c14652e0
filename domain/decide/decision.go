package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// decision is what one call of [State.Decide] works with, and nothing of it outlives the next call: the time, what caused
// it, what it is about at the moment, and the outputs that it has gathered, in their order.
type decision struct {
	now     time.Time
	cause   *whisperv1.Position // of what is told; nil where time or presence caused it, or seen did
	seen    *SocketFactArrived
	busy    busy
	out     []Output
	timeBox timeBox

	serving *delivery // whose turn it is: it waits for nobody who waits for theirs
	woken   int       // how many deliveries were woken
}

// begin drops what the last decision gathered. What was written is not kept alive, least of all after a burst.
func (d *decision) begin(now time.Time) {
	clear(d.out)
	if d.out = d.out[:0]; cap(d.out) > 16*DueSlice {
		d.out = nil
	}
	d.now, d.cause, d.seen, d.busy, d.timeBox = now, nil, nil, busy{}, timeBox{}
	d.serving, d.woken = nil, 0
}

// causedBy is the position of the record that is being decided about.
func (d *decision) causedBy() *whisperv1.Position {
	if d.cause == nil && d.seen != nil {
		d.cause = &whisperv1.Position{Topic: d.seen.Topic, Partition: d.seen.Partition, Offset: d.seen.Offset}
	}
	return d.cause
}

// put adds an output behind the others.
func (d *decision) put(o Output) { d.out = append(d.out, o) }

// timeBox is how long a slice has lasted. The caller has the clock ([WalkOn]); it is asked once what was done since may have
// taken some microseconds, in units of a segment (a few ten nanoseconds).
type timeBox struct {
	over  func() bool
	units int
	wide  bool // nobody waits behind a burst
}

const (
	timeBoxUnits = 128
	lookedUnits  = 8   // a user was looked at
	metUnits     = 128 // and is in the audience
)

// ends adds what was done, and says whether the slice has lasted long enough.
func (l *timeBox) ends(units int) bool {
	if l.units += units; l.over == nil || l.units < timeBoxUnits {
		return false
	}
	l.units = 0
	return l.over()
}

// busy is what a decision is about at the moment: at most one delivery, or one user of a broadcast.
type busy struct {
	delivery *delivery
	walk     *walk
	user     string            // of the walk; "": the walk itself
	id       domain.DeliveryID // of a broadcast that is being restored
	note     string
}
