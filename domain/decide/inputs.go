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

// Input is one thing that happened: a record that dispatch read from a topic, or time that passed. The set is closed.
// XArrived is a record that asks for something or tells a fact; XChanged is the new state of one key of a table.
//
//sumtype:decl
type Input interface{ input() }

type (
	// DeliveryArrived is a delivery that intake accepted. Cause is the record's position.
	DeliveryArrived struct {
		Event  *whisperv1.Event
		Source LaneOffset
		Trace  Trace
		Cause  *whisperv1.Position
	}
	// CancelArrived asks to cancel the deliveries of a notification that have not ended.
	CancelArrived struct {
		Event  *whisperv1.Event
		Source LaneOffset
		Trace  Trace
		Cause  *whisperv1.Position
	}
	// BroadcastArrived is a broadcast that intake accepted. The partition walks its own users.
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
	// WalkOn does one slice of the next of the lane's broadcasts. Over says, as the slice goes on, that it has lasted long
	// enough; it is asked after what may take some microseconds. A slice may end behind any user, so nothing but its
	// length depends on the answers. Nil: only the number of users ends it. Wide says that nothing urgent could wait behind
	// what the slice sends, so it may have as many connected users as others.
	WalkOn struct {
		Lane domain.Lane
		Over func() bool
		Wide bool
	}
	// FactArrived is an event of whisper.events, those that dispatch itself wrote included.
	FactArrived struct {
		Event *whisperv1.Event
		Cause *whisperv1.Position
	}
	// SocketFactArrived is FactArrived for what gateways tell of attempts, which is most of it, and is handed over undecoded: Fact
	// is what [domain.ReadSocketFact] read of Value. Topic, Partition and Offset are the record's position.
	SocketFactArrived struct {
		Fact      domain.SocketFact
		Value     []byte
		Topic     string
		Partition int32
		Offset    int64
	}
	// FactRecalled is a fact that was read back for a [Recall].
	FactRecalled struct {
		Event *whisperv1.Event
		Cause *whisperv1.Position
	}
	// RecallRead says that all facts that a [Recall] asked for have arrived as [FactRecalled].
	RecallRead struct{ Notification string }
	// PresenceChanged is the sessions that a user has on a node now; nil: none. Incarnation is that of the node that says
	// nil, or 0 where it is not known.
	PresenceChanged struct {
		User        string
		Node        string
		Incarnation uint64
		Presence    *whisperv1.Presence
	}
	// NodeChanged is the incarnation of a node that lives now, or 0 if none does.
	NodeChanged struct {
		Node        string
		Incarnation uint64
	}
	// NodesSwept says which nodes may still come back (Kept). The presence that all others wrote before a time is removed.
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
	// TemplateChanged is a new record of a template, or nil when it is gone. ID is its key, which may be pinned to a
	// version (see PinTemplate); Version is its offset. Current is the version that a key which is not pinned is a
	// copy of; 0: it has no versions.
	TemplateChanged struct {
		ID       string
		Version  int64
		Current  int64
		Template *template.Template
	}
	// CategoryChanged is a category's rules as whisper.categories has them now; nil: it is not declared any more.
	CategoryChanged struct {
		Name     string
		Category *category.Category
	}
	// TemplatesRead says that whisper.templates has been read up to the offset Next.
	TemplatesRead struct{ Next int64 }
	// TimePassed deals with what is due now.
	TimePassed struct{}
)

func (DeliveryArrived) input()    {}
func (CancelArrived) input()      {}
func (BroadcastArrived) input()   {}
func (SteeringArrived) input()    {}
func (WalkOn) input()             {}
func (FactArrived) input()        {}
func (*SocketFactArrived) input() {}
func (FactRecalled) input()       {}
func (RecallRead) input()         {}
func (PresenceChanged) input()    {}
func (NodeChanged) input()        {}
func (NodesSwept) input()         {}
func (ProfilePatched) input()     {}
func (TemplateChanged) input()    {}
func (TimePassed) input()         {}
func (CategoryChanged) input()    {}
func (TemplatesRead) input()      {}
