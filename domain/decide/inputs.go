package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// LaneOffset is where a delivery's record stands on whisper.deliveries.{lane}: what holds the commit back
// until the delivery is settled or parked.
type LaneOffset struct {
	Lane   domain.Lane
	Offset int64
}

// Trace is the W3C trace context that every record of a delivery carries on.
type Trace struct {
	Parent string
	State  string
}

// Input is one thing that happened, as dispatch read it off a topic or off the clock. The set is closed.
//
//sumtype:decl
type Input interface{ input() }

type (
	// DeliveryArrived: intake accepted it. Cause is the record's position.
	DeliveryArrived struct {
		Event  *whisperv1.Event
		Source LaneOffset
		Trace  Trace
		Cause  *whisperv1.Position
	}
	// CancelArrived asks to cancel what is still held of a notification.
	CancelArrived struct {
		Event  *whisperv1.Event
		Source LaneOffset
		Trace  Trace
		Cause  *whisperv1.Position
	}
	// BroadcastArrived: intake accepted a broadcast, and this is the partition's share of it.
	BroadcastArrived struct {
		Event  *whisperv1.Event
		Source LaneOffset
		Trace  Trace
		Cause  *whisperv1.Position
	}
	// SteeringArrived asks to pause, resume or retract a notification; the event's kind says which.
	SteeringArrived struct {
		Event  *whisperv1.Event
		Source LaneOffset
		Trace  Trace
		Cause  *whisperv1.Position
	}
	// WalkOn does one slice of the next of the lane's broadcasts.
	WalkOn struct{ Lane domain.Lane }
	// FactSeen is feedback: any event of whisper.events, our own ones included.
	FactSeen struct {
		Event *whisperv1.Event
		Cause *whisperv1.Position
	}
	// FactRecalled is a fact that was read back for a [Recall].
	FactRecalled struct {
		Event *whisperv1.Event
		Cause *whisperv1.Position
	}
	// RecallRead says that all facts that a [Recall] asked for have been told.
	RecallRead struct{ Notification string }
	// PresenceSeen is what a node holds of a user now; nil: nothing any more. Incarnation is the start of
	// the node that says nil, 0 where it is not known.
	PresenceSeen struct {
		User        string
		Node        string
		Incarnation uint64
		Presence    *whisperv1.Presence
	}
	// NodeSeen is the state of a node: the incarnation that lives, or 0 for a dead one.
	NodeSeen struct {
		Node        string
		Incarnation uint64
	}
	// NodesSwept says which nodes may still come back: what all others told of users before a time is over for good.
	NodesSwept struct {
		Kept   map[string]bool
		Before time.Time
	}
	// ProfilePatched changes a user; Patch nil forgets the user. With Moved it takes an endpoint whose token is somebody
	// else's now, and Patch says the same for versions that don't know of it.
	ProfilePatched struct {
		User   string
		Patch  []byte
		At     time.Time
		Offset int64
		Moved  *Moved
	}
	// TemplateSeen is a new record of a template, or nil when it is gone. ID is its key, which may be pinned to a
	// version (see PinTemplate); Version is its offset. Current is the version that a key which is not pinned is a
	// copy of; 0: it has no versions.
	TemplateSeen struct {
		ID       string
		Version  int64
		Current  int64
		Template *template.Template
	}
	// CategorySeen is what whisper.categories says of one now; nil: it is not declared any more.
	CategorySeen struct {
		Name     string
		Category *category.Category
	}
	// TemplatesRead says that everything that whisper.templates had before the offset Next has been told.
	TemplatesRead struct{ Next int64 }
	// TimePassed looks at what is due.
	TimePassed struct{}
)

func (DeliveryArrived) input()  {}
func (CancelArrived) input()    {}
func (BroadcastArrived) input() {}
func (SteeringArrived) input()  {}
func (WalkOn) input()           {}
func (FactSeen) input()         {}
func (FactRecalled) input()     {}
func (RecallRead) input()       {}
func (PresenceSeen) input()     {}
func (NodeSeen) input()         {}
func (NodesSwept) input()       {}
func (ProfilePatched) input()   {}
func (TemplateSeen) input()     {}
func (TimePassed) input()       {}
func (CategorySeen) input()     {}
func (TemplatesRead) input()    {}

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
	// Uncount forgets what was counted of a user.
	Uncount struct{ User string }
	// Deliver writes a delivery of our own making to its lane's whisper.deliveries: a digest.
	Deliver struct{ Event *whisperv1.Event }
	// Notice is worth a warning to the operators, once: what is wrong, and the name that it is wrong about.
	Notice struct{ What, Name string }
	// Reject sends the input's record to the dead letters.
	Reject struct{ Reason error }
	// Settle says that nothing more depends on the record at Source. Seen is what the window has to
	// remember of it before its offset is committed; nil for duplicates and commands.
	Settle struct {
		Source LaneOffset
		Seen   *SeenDelivery
	}
	// Remember says that what the window was told before came to its end, late. It is written when everything decided before
	// it is acknowledged.
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
