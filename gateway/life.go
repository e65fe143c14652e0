package gateway

// The life of a session. Its phase only goes forward:
//
//	               closed                   goodbyeTaken                released
//	     open ───────────────▶ closing ──────────────────▶ parted ───────────────▶ freed
//	       │                      │                          ▲
//	       │                      └──────── gaveUp ──────────┤
//	       └──────────────── dropped, gaveUp ────────────────┘
//
// What a phase means:
//
//   - open: the session is in the hub, deliveries come, and what its client sends counts.
//   - closing: it is out of the hub. Its close frame waits behind what is queued. Acknowledgements that were on their
//     way still count, unless the client broke the protocol or said goodbye itself (deaf).
//   - parted: nothing more is written, since the close frame is out or can't be written. Our half is hung up; the
//     reader goes on to the end of the client's half, for closeLinger at most.
//   - freed: its link and its place are given back. Nobody touches the link any more.
//
// Who gives which input:
//
//   - closed: anybody who has a reason that the client is told (close): a protocolError, a revocation, the token's
//     end, a full buffer, the client's own close frame, the drain.
//   - dropped: whoever finds that nobody listens: the reader at the end of the connection, the timekeeper when a ping
//     is not answered or a deadline is over.
//   - goodbyeTaken: the writer, as it takes the close frame for its last write.
//   - gaveUp: the writer whose write failed; or whoever ends a write that is blocked: the reader at its end, the
//     timekeeper at its deadline, the writer itself when its deliveries waited too long.
//   - released: the last of the reader and the writer. A deadline makes sure that both come to their end: it cuts the
//     link, which ends the reader, and no write waits after that.
//
// Beside it, the writer has a state of its own:
//
//	idle    ── something is queued ──────────▶ waiting
//	waiting ── its turn ─────────────────────▶ active
//	active  ── nothing is queued any more ───▶ idle
//	active  ── other sessions wait ──────────▶ waiting
//	active  ── the socket takes no more ─────▶ blocked
//	blocked ── it takes more (the poller) ───▶ waiting
//	active, blocked ── gaveUp ───────────────▶ idle

// phase is how far a session is in its life.
type phase uint8

const (
	open phase = iota
	closing
	parted
	freed
	phases
)

// input is what moves a session's life on.
type input uint8

const (
	closed input = iota
	dropped
	goodbyeTaken
	gaveUp
	released
	inputs
)

// never: the input does not come in this phase, and changes nothing if it does.
const never = phases

// lives is the table of it all. A test has each cell happen to a session.
var lives = [phases][inputs]phase{
	open:    {closed: closing, dropped: parted, goodbyeTaken: never, gaveUp: parted, released: never},
	closing: {closed: closing, dropped: closing, goodbyeTaken: parted, gaveUp: parted, released: never},
	parted:  {closed: parted, dropped: parted, goodbyeTaken: never, gaveUp: parted, released: freed},
	freed:   {closed: freed, dropped: freed, goodbyeTaken: never, gaveUp: never, released: never},
}

// move has an input act on the phase; under the lock. It says whether the phase is another one.
func (s *session) move(in input) (moved bool) {
	to := lives[s.phase][in]
	if to == never || to == s.phase {
		return false
	}
	s.phase = to
	return true
}

// What the writing side of a session does.
type writing uint8

const (
	idle    writing = iota
	waiting         // it is the flusher's, or a goroutine is about to write
	active          // somebody writes
	blocked         // the socket takes nothing for now; the poller says when it does
)
