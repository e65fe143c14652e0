package decide

import "github.com/klivvr/whisper/domain/whisperv1"

// A broadcast's state machine, in a partition. Where its walk stands is its walkStage; the table says, for each stage and
// each thing that can happen, what is done. A test holds the drawing to the table, and another plays every cell.
//
//	scheduled ──► running ──► walked ──► (no delivery is open, nobody waits: it is removed)
//	    │  ▲         │  ▲        │
//	    │  └─────────┴──┴────────┴──── resume: waking first, if somebody connected meanwhile
//	    ├──► paused, or catchingUp: to where facts from before a restart tell of users
//	    └──► endingWaiting ──► walkingOut ──► ended ──► (no delivery is open: it is removed)
//	         on cancel and expiry
//
//	stage          turn           expires   pause  resume  cancel  connects
//	endingWaiting  end waiting    -         -      -       -       -
//	walkingOut     walk           -         -      -       -       -
//	ended          -              -         -      -       -       -
//	catchingUp     walk           end       note   resume  end     -
//	paused         -              end       note   resume  end     -
//	waking         wake           end       pause  note    end     send
//	scheduled      start or walk  end       pause  note    end     send
//	running        start or walk  end       pause  note    end     send
//	walked         start          end       pause  note    end     send
//
// Two things hold a walk back in any stage: the time that its rate, or a template that is on its way, makes it wait for (waits),
// and what is in flight of it (maxFlying, maxSlices). They say when its turn is ([walk.nextTurn]), never what is done then.
//
// The stage follows from what the walk's records say (paused, the cursor, how it ended) and from who waits, so a restart
// restores it; who was to be woken is found anew ([State.wakeAll]).

// walkStage is where a walk stands.
type walkStage int8

const (
	walkEndingWaiting walkStage = iota // cancelled or expired: those who wait are ended, slice by slice
	walkWalkingOut                     // the same, after a restart: the rest is walked, so that each gets the fact of their end
	walkEnded                          // only deliveries that are open are waited for
	walkCatchingUp                     // paused, and goes on to the last user of whom facts tell, beginning with nobody
	walkPaused
	walkWaking    // resumed: those who connected meanwhile come first
	walkScheduled // it has not begun: its time is to come, or its template, or its turn
	walkRunning
	walkWalked // all users were looked at; some wait, or are in flight
	walkStages
)

// walkHappening is what can happen to a walk.
type walkHappening int8

const (
	itsTurn walkHappening = iota
	walkExpires
	pauseAsked
	resumeAsked
	cancelAsked
	userConnects
	walkHappenings
)

// walkReaction is what is done about it.
type walkReaction int8

const (
	walkIgnores  walkReaction = iota
	walkNotes                 // remember the request, so that an earlier one that comes later changes nothing
	endWaiting                // end a slice of those who wait
	walkUsers                 // look at the next users
	startWaiting              // start with those whose local time has come
	startOrWalk               // the same, or else look at the next users
	wakeWaiting               // send to a slice of those who connected during the pause
	pauses                    // start no new delivery
	resumes                   // start what the pause kept
	ends                      // stop: what waits is ended, what is in flight goes on to its own end
	sends                     // send to a user who waits to connect
)

// walkReactions is the table.
var walkReactions = [walkStages][walkHappenings]walkReaction{
	walkEndingWaiting: {itsTurn: endWaiting},
	walkWalkingOut:    {itsTurn: walkUsers},
	walkEnded:         {},
	walkCatchingUp:    {itsTurn: walkUsers, walkExpires: ends, pauseAsked: walkNotes, resumeAsked: resumes, cancelAsked: ends},
	walkPaused:        {walkExpires: ends, pauseAsked: walkNotes, resumeAsked: resumes, cancelAsked: ends},
	walkWaking:        {itsTurn: wakeWaiting, walkExpires: ends, pauseAsked: pauses, resumeAsked: walkNotes, cancelAsked: ends, userConnects: sends},
	walkScheduled:     {itsTurn: startOrWalk, walkExpires: ends, pauseAsked: pauses, resumeAsked: walkNotes, cancelAsked: ends, userConnects: sends},
	walkRunning:       {itsTurn: startOrWalk, walkExpires: ends, pauseAsked: pauses, resumeAsked: walkNotes, cancelAsked: ends, userConnects: sends},
	walkWalked:        {itsTurn: startWaiting, walkExpires: ends, pauseAsked: pauses, resumeAsked: walkNotes, cancelAsked: ends, userConnects: sends},
}

// stage is where w stands.
func (w *walk) stage() walkStage {
	switch {
	case len(w.toEnd) > 0:
		return walkEndingWaiting
	case w.ending && !w.done:
		return walkWalkingOut
	case w.ending:
		return walkEnded
	case w.paused && w.catchesUp():
		return walkCatchingUp
	case w.paused:
		return walkPaused
	case len(w.toWake) > 0:
		return walkWaking
	case w.done:
		return walkWalked
	case w.begun.IsZero():
		return walkScheduled
	default:
		return walkRunning
	}
}

// reacts is what is done when something happens to w.
func (w *walk) reacts(h walkHappening) walkReaction { return walkReactions[w.stage()][h] }

// step does w's turn.
func (s *State) step(w *walk) {
	if w.over(s.now) && w.reacts(walkExpires) == ends {
		s.endWalk(w, whisperv1.BroadcastState_BROADCAST_STATE_EXPIRED)
		return
	}
	switch w.reacts(itsTurn) {
	case endWaiting:
		s.endSome(w)
	case walkUsers:
		s.walkSlice(w)
	case wakeWaiting:
		s.wakeSome(w)
	case startWaiting:
		s.startScheduled(w)
	case startOrWalk:
		if !s.startScheduled(w) {
			s.walkSlice(w)
		}
	case walkIgnores, walkNotes, pauses, resumes, ends, sends: // nothing in this column
	}
}
