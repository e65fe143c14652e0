package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Output is one thing to write. Most become records; Settle, Unpark, ParkAfter, Advanced and
// Finished may take effect only when all outputs before them are acknowledged by Kafka. The set is closed.
//
//sumtype:decl
type Output interface{ output() }

type (
	// Emit writes a fact to whisper.events.
	Emit struct {
		Event *whisperv1.Event
		Trace Trace
	}
	// RouteTo hands a frame to a gateway.
	RouteTo struct {
		Node  string
		User  string
		Route *whisperv1.Route
		Trace Trace
	}
	// PushTo hands an attempt to a channel's push role.
	PushTo struct {
		Push  *whisperv1.Push
		Trace Trace
	}
	// Park writes the delivery to whisper.timers, Unpark its tombstone.
	Park struct {
		ID     domain.DeliveryID
		Parked *whisperv1.Parked
	}
	// Unpark removes what Park wrote, once everything before this output is acknowledged: a delivery must not
	// be forgotten before the fact of its end is known.
	Unpark struct{ ID domain.DeliveryID }
	// ParkAfter is a Park that is written once everything before this output is acknowledged.
	ParkAfter struct {
		ID     domain.DeliveryID
		Parked *whisperv1.Parked
	}
	// Recall asks for the facts of a notification, as [FactRecalled], that the partition's whisper.events has from a time
	// on, up to the fact that was seen last; then for [RecallRead]. Of facts only those are meant that say that a push
	// may have been shown. From is by upstream's clock.
	Recall struct {
		Notification string
		From         time.Time
	}
	// PutPresence writes presence in a node's name: nil ends what a node left that never came back; otherwise it is
	// what the node's later start told, written again since an earlier start's end came after it.
	PutPresence struct {
		User, Node  string
		Incarnation uint64
		Presence    *whisperv1.Presence
	}
	// PutUser writes a user to whisper.users; nil: a tombstone. Claims go to whisper.tokens with it. An erased user who
	// releases tokens is Profile.erased first.
	PutUser struct {
		User    string
		Profile *whisperv1.Profile
		Claims  []PutClaim
	}
	// SliceTaken begins a slice of a broadcast: feedback about its deliveries comes from here on.
	SliceTaken struct {
		Broadcast domain.DeliveryID
		Slice     int64
		// Replays: some of them may have been dealt with before the restart, so their feedback is as old.
		Replays bool
	}
	// Advanced lets go of all slices up to and including Slice. Cursor is to be parked under CursorID
	// once everything before this output is acknowledged by Kafka; of several of a broadcast the last is enough.
	// Until then a restart walks those slices again. FirstIDs are removed after that: once everyone was looked at, nothing
	// depends on who came first, and a user who is forgotten is in no list.
	Advanced struct {
		Broadcast domain.DeliveryID
		Slice     int64
		CursorID  domain.DeliveryID
		Cursor    *whisperv1.Parked
		FirstIDs  []domain.DeliveryID
	}
	// Finished ends a broadcast: nothing depends on its records any more (FirstIDs are those of who was walked
	// first). They are removed, in this order,
	// once everything before this output is acknowledged.
	Finished struct {
		Broadcast, CursorID domain.DeliveryID
		FirstIDs            []domain.DeliveryID
	}
	// Steered counts a command; Known says whether the partition held anything of the notification.
	Steered struct {
		Command      string
		Notification string
		Known        bool
	}
	// Count notes that a delivery counts against caps. It has to be durable before what comes after it for
	// this user is written: a restart that had forgotten it would make room for one too many.
	Count struct {
		User     string
		Category string // the declared one
		Hash     domain.DeliveryHash
		At       time.Time
	}
	// Uncount removes a user's counts: the user was erased.
	Uncount struct{ User string }
	// Deliver writes a delivery that dispatch made itself, a digest, to whisper.deliveries of its lane.
	Deliver struct{ Event *whisperv1.Event }
	// Notice is a warning for operators, given once: what is wrong, and the name of what it is about.
	Notice struct{ What, Name string }
	// Reject sends the input's record to the dead letters.
	Reject struct{ Reason error }
	// Settle says that nothing more depends on the record at Source. Seen is what the window has to
	// remember of it before its offset is committed; nil for duplicates and commands.
	Settle struct {
		Source LaneOffset
		Seen   *SeenDelivery
	}
	// Remember writes a delivery to the window a second time, since it ended long after its request. It is written when
	// everything decided before it is acknowledged.
	Remember struct{ Seen SeenDelivery }
)

func (Emit) output()        {}
func (RouteTo) output()     {}
func (PushTo) output()      {}
func (Park) output()        {}
func (Unpark) output()      {}
func (ParkAfter) output()   {}
func (Recall) output()      {}
func (PutPresence) output() {}
func (PutUser) output()     {}
func (Reject) output()      {}
func (SliceTaken) output()  {}
func (Advanced) output()    {}
func (Finished) output()    {}
func (Steered) output()     {}
func (Settle) output()      {}
func (Remember) output()    {}
func (Count) output()       {}
func (Uncount) output()     {}
func (Deliver) output()     {}
func (Notice) output()      {}
