package decide

import (
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A delivery's state machine. Where it stands is its stage; what can happen to it is a happening; the table says, for each
// stage and happening, what is done ([reaction]). The code goes by the table, a test holds the drawing to it, and another
// plays every cell.
//
//	arrive ──► fresh ──► scheduled, held, timed, gathered ──► written ──► (the digest comes: ends)
//	             │                     │ the policy lets it go
//	             ▼                     ▼
//	          ┌───────────── an attempt is made ◄─────────────┐
//	          ▼                               ▼               │ time, a connection, an endpoint
//	       atSocket ── no ack, no node ──► atPush ── refused ──► backoff, unmade, away, idle
//	          │ acknowledged                  │ taken         │
//	          ▼                               ▼               ▼
//	        (ends)                          (ends)         (expires: ends)
//
//	stage      due           connects      leaves  node dies  profile  rules   sockets fail  pushes fail
//	fresh      rest          -             -       -          -        -       note          note
//	scheduled  advance       -             -       -          -        -       note          note
//	held       advance       -             -       -          advance  hasten  note          note
//	timed      its hour      -             -       -          advance  hasten  note          note
//	gathered   close digest  -             -       -          ask      hasten  note          note
//	written    close digest  -             -       -          ask      -       note          note
//	away       to socket     to socket     -       -          ask      -       note          note
//	idle       try again     -             -       -          ask      -       note          note
//	atSocket   next channel  also there    hurry   give up    -        -       bounced       note
//	atPush     await answer  to socket     -       give up    -        -       note          retry
//	backoff    advance       to socket     -       -          ask      -       note          note
//	unmade     advance       -             -       -          ask      -       note          note
//	unknown    rest          -             -       -          -        -       note          note
//
// Whatever its stage, a delivery ends when it is acknowledged, when a provider took it and no other push is open, when it is
// cancelled, its user is erased, or it expires.
//
// Beside the stage stand the delivery's flags. They say what came of attempts (socketTook, pushTook, doubtful, retry,
// outlook), what was passed once (counted, gathered, timed, lacking), and what holds it that is not its own: the pause
// and the rate of its broadcast (heldByPause, rateSlot). restart_test.go knows which of them a restart restores, and why the others may
// be lost.

// stage is where a delivery stands.
type stage int8

const (
	stageFresh     stage = iota // nothing was decided yet
	stageScheduled              // waits for its send_at
	stageHeld                   // waits for the end of quiet hours, or for room in a cap
	stageTimed                  // waits for the user's usual hour
	stageGathered               // waits for the end of its digest's window
	stageWritten                // its digest is written, and ends it when it comes
	stageAway                   // waits for its user to connect
	stageIdle                   // a push leg that waits for an endpoint
	stageAtSocket               // a socket was sent it, and is to acknowledge
	stageAtPush                 // a push role was handed it, and is to answer
	stageBackoff                // waits for its next try: a failure, a template, or an endpoint that may come
	stageUnmade                 // a leg that a restart restored with pushes that may never have been made: its next try makes them
	stageUnknown                // a later version parked it, in a phase that this one does not know
	stages
)

// happening is what can happen to a delivery that does not end it whatever its stage.
type happening int8

const (
	becameDue      happening = iota // what it waited for is over, or overdue
	connected                       // its user opened a session
	disconnected                    // its user closed the last session on a node
	nodeDied                        // a node that holds attempts of it is gone
	profileChanged                  // its user's profile changed
	rulesChanged                    // its category's rules changed
	socketsFailed                   // the last attempt over a socket that was open failed
	pushesFailed                    // the last push that was open failed
	happenings
)

// reaction is what is done about a happening.
type reaction int8

const (
	ignore       reaction = iota
	rest                  // look again when it expires
	advance               // ask the checks, and try from where it stands
	itsHour               // the same, and it is not held for its hour again
	closeDigest           // write the digest of those that are gathered with it
	toSocket              // try from the socket on, if its user is connected and it may be sent there
	tryAgain              // try from the first channel on
	alsoThere             // send it to the session that was opened, too
	nextChannel           // the time to acknowledge is over: try from the next channel on
	awaitAnswer           // park it until its pushes are answered
	hurry                 // an acknowledgement may be on its way: wait for it a moment only
	giveUp                // drop the attempts that the node held
	ask                   // ask the checks: end it if it is refused now, push it if an endpoint can be tried
	hasten                // it is due now
	note                  // remember what came of it; it decides nothing here
	bounced               // to where the user is now, or to the next channel
	retryOrLeave          // try again if that may help, or try from the next channel on
)

// reactions is the table.
var reactions = [stages][happenings]reaction{
	stageFresh:     {becameDue: rest, socketsFailed: note, pushesFailed: note},
	stageScheduled: {becameDue: advance, socketsFailed: note, pushesFailed: note},
	stageHeld:      {becameDue: advance, profileChanged: advance, rulesChanged: hasten, socketsFailed: note, pushesFailed: note},
	stageTimed:     {becameDue: itsHour, profileChanged: advance, rulesChanged: hasten, socketsFailed: note, pushesFailed: note},
	stageGathered:  {becameDue: closeDigest, profileChanged: ask, rulesChanged: hasten, socketsFailed: note, pushesFailed: note},
	stageWritten:   {becameDue: closeDigest, profileChanged: ask, socketsFailed: note, pushesFailed: note},
	stageAway:      {becameDue: toSocket, connected: toSocket, profileChanged: ask, socketsFailed: note, pushesFailed: note},
	stageIdle:      {becameDue: tryAgain, profileChanged: ask, socketsFailed: note, pushesFailed: note},
	stageAtSocket:  {becameDue: nextChannel, connected: alsoThere, disconnected: hurry, nodeDied: giveUp, socketsFailed: bounced, pushesFailed: note},
	stageAtPush:    {becameDue: awaitAnswer, connected: toSocket, nodeDied: giveUp, socketsFailed: note, pushesFailed: retryOrLeave},
	stageBackoff:   {becameDue: advance, connected: toSocket, profileChanged: ask, socketsFailed: note, pushesFailed: note},
	stageUnmade:    {becameDue: advance, profileChanged: ask, socketsFailed: note, pushesFailed: note},
	stageUnknown:   {becameDue: rest, socketsFailed: note, pushesFailed: note},
}

// reacts is what is done when something happens to d.
func (d *delivery) reacts(h happening) reaction { return reactions[d.stage()][h] }

// stage is where d stands.
func (d *delivery) stage() stage {
	switch d.phase {
	case whisperv1.Phase_PHASE_UNSPECIFIED:
		return stageFresh
	case whisperv1.Phase_PHASE_SCHEDULED:
		return stageScheduled
	case whisperv1.Phase_PHASE_QUIET, whisperv1.Phase_PHASE_CAPPED:
		return stageHeld
	case whisperv1.Phase_PHASE_TIMED:
		return stageTimed
	case whisperv1.Phase_PHASE_DIGEST:
		if d.closing {
			return stageWritten
		}
		return stageGathered
	case whisperv1.Phase_PHASE_AWAY:
		if d.legs != nil && d.own[0] != domain.ChannelSocket {
			return stageIdle
		}
		return stageAway
	case whisperv1.Phase_PHASE_SENDING:
		if d.channel() == domain.ChannelSocket {
			return stageAtSocket
		}
		return stageAtPush
	case whisperv1.Phase_PHASE_BACKOFF:
		if d.legs != nil && d.openPushes() {
			return stageUnmade
		}
		return stageBackoff
	default:
		return stageUnknown
	}
}

// due does what is due for d, whose time has come.
func (s *State) due(d *delivery) {
	switch d.reacts(becameDue) {
	case advance:
		s.advance(d)
	case itsHour:
		d.timed = true
		s.advance(d)
	case closeDigest:
		s.closeDigest(d)
	case tryAgain:
		s.sendFromSocket(d)
	case toSocket: // a pause is over
		if len(s.presence.live(d.user())) > 0 {
			s.sendFromSocket(d)
		} else {
			s.deliveries.schedule(d, d.expires())
		}
	case nextChannel:
		d.dropSockets()
		d.step++
		s.advance(d)
	case awaitAnswer:
		if d.pushTook { // one provider has it, and the other attempts are on their way
			s.settle(d)
		} else {
			s.awaitPushes(d)
		}
	case rest, ignore, alsoThere, hurry, giveUp, ask, hasten, note, bounced, retryOrLeave: // nothing in this column but rest
		s.deliveries.schedule(d, d.expires())
	}
}
