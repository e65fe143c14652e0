// Package gateway is the role that holds sockets: it takes frames from this node's own topic, writes
// them to the sessions of the user they are for, and tells what became of each as facts. It owns the
// wire format of the socket, sessions, presence and the node's heartbeat. It must not decide what a
// user gets, over which channel or when again: that is dispatch's.
//
// What others may rely on:
//
//   - Every record of `whisper.node.{id}` has an outcome: sent, delivered, or a failed attempt
//     (unreachable: no such session here, or meant for another incarnation; expired), or a dead letter.
//     The offset is committed only when Kafka has the outcome, so a crash hands the record out again, and
//     the next incarnation answers `unreachable`.
//   - A presence record tells the user's last state here; at_us grows with each change of it. A bounce
//     that was decided before a session opened has a smaller at_us than that session's presence.
//   - `high` frames leave before `normal` before `low`: off Kafka, and on each socket, where at most one
//     write of 16 KiB is under way when an alert comes.
//   - A session never outlives its token, or the last one it was refreshed with, by more than the leeway; a
//     revocation closes every session that it covers, also one that is just being opened. Which algorithms
//     count is fixed by the keys configured. No token is logged or sent back.
//   - One session costs the others nothing: writes never block anything but their own session, which is
//     closed when it falls behind. Its frames and the ids in them are paid for (meter); who has used its share is
//     not read until it is paid for. At most 8 KiB of one socket are read until others had their turn.
//   - A connection that is no session yet keeps nobody out: silent ones go first, a token is verified before its
//     connection takes a turn, and what strangers cost is counted for their address.
//
// # What it costs
//
// A session at rest is about 1 KiB of heap beside the kernel's socket: no goroutine and no buffer, as long as
// its socket can be polled; with TLS or without epoll, a goroutine and a buffer of 512 bytes. An
// unacknowledged delivery costs about 0.5 KiB; the last 64 that were acknowledged cost the same until the
// second ping after it, then 32 bytes. Everything of a node's topic passes through one goroutine, and the
// acknowledgements through one for two processors: that is where a node stops scaling.
//
// # Limits
//
// There are two ideas, each with one type. A meter bounds work over time: what a piece of work costs is a price, and
// whoever has used its room pays before more is done. counts bounds how many there are at once.
//
//	what                        for whom          with
//	tokens that are not valid   an address        limiter: a meter each (priceBadToken, priceOldToken)
//	frames, and the ids in them a session         two meters of its own (priceFrame; priceID, priceStranger)
//	reads of what was not sent  a user            limiter: a meter each, for those who connect anew (priceStranger)
//	connections let in          the node          admission: two meters, of those let in and those told to come again
//	lines about refusals        a reason          refusals: a meter each (priceLogLine)
//	connections at once         an address        addresses: counts, from accept to the session's end
//	silent connections          an address        handshakes.held: counts of those that are no session yet
//	connections at once         the node, a user  the gateway's and the hub's own numbers
//
// Frames and ids are not counted for the address, although tokens are. Thousands of people share the address of a mobile
// network or of a proxy, so one of them could use up the share of all; and once a token is verified there is
// something better to hold responsible. The node's admission has no address either: it protects the node's own work. A
// handshake has no price: what it costs is a place, for as long as it is there, so places are counted. A meter of a session
// needs no lock, since one goroutine reads it.
//
// # When Kafka takes nothing
//
// Whoever has a fact to tell waits, and so do those who read sockets: the clients' words wait where they
// are. Nobody is closed for that, no more deliveries are handed over, and a stop gives up waiting with its drain.
//
// # Close codes
//
// docs/contract.md lists them; closeCodes holds them, by who causes each. What a client did wrong is one type,
// protocolError: a frame that is JSON but can't be used (unknown type, unknown id, ids missing, a bad token) is answered
// with an error frame and the session stays open; before 4003 an error frame says what was wrong. A client that does
// not answer a ping is cut off without a close frame, since nobody listens. A full, starting or draining node answers
// 503 with Retry-After before the upgrade.
package gateway
