// Package gateway is the role that holds clients' sockets. It reads frames from this node's own topic, writes them to
// the sessions of the user they are for, and publishes facts that say what became of each. It owns the wire format of the
// socket, sessions, presence and the node's heartbeat. It must not decide what a user gets, over which channel or when
// again: that is dispatch's.
//
// What other roles and clients may rely on:
//
//   - Every record of `whisper.node.{id}` gets an outcome: sent, delivered, a failed attempt (expired; or unreachable:
//     there is no such session here, or the record is for another incarnation), or a dead letter. The record's offset is
//     committed only when Kafka has the outcome. After a crash Kafka hands the record out again, and the next incarnation
//     answers `unreachable`.
//   - A presence record says whether the user is connected here; at_us grows with each change. A bounce that was decided
//     before a session opened has a smaller at_us than that session's presence.
//   - `high` frames are sent before `normal`, and `normal` before `low`: in reading from Kafka, and on each socket. At most
//     one write of 16 KiB is under way when an alert comes.
//   - A session ends at the latest when its token does (the newest, if it was refreshed), plus the leeway. A revocation
//     closes every session that it covers, also one that is being opened at that moment. The configured keys decide which
//     algorithms count. Tokens are never logged or sent back.
//   - A session cannot slow others down. A write blocks nothing but its own session, which is closed when it falls behind.
//     Frames and the ids in them are limited (below): a session that is over a limit is not read until the limit allows
//     more. At most 8 KiB of one socket are read before other sockets get their turn.
//   - Connections that are no sessions yet keep nobody out: silent ones are closed first, a token is verified before its
//     connection counts against the admission rate, and what strangers cost is counted for their address.
//
// # What it costs
//
// A session at rest takes about 1 KiB of heap, besides the kernel's socket. It has no goroutine and no buffer where its
// socket can be polled; with TLS, or without epoll, it has a goroutine and a buffer of 512 bytes. An unacknowledged
// delivery takes about 0.5 KiB; so do the last 64 that were acknowledged, until the second ping after the
// acknowledgement, and 32 bytes each after that. All records of a node's topic pass through one goroutine, and all
// acknowledgements through one for each two processors: that is where a node stops scaling.
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
// Whoever has a fact to publish waits, and with it the goroutines that read sockets: what clients send waits in their
// sockets. No session is closed for that, no more deliveries are handed over, and a stop waits only until its drain ends.
//
// # Close codes
//
// docs/contract.md lists them; closeCodes holds them, by who causes each. What a client did wrong is one type,
// protocolError: a frame that is JSON but can't be used (unknown type, unknown id, ids missing, a bad token) is answered
// with an error frame and the session stays open; before 4003 an error frame says what was wrong. A client that does
// not answer a ping is cut off without a close frame, since nobody listens. A full, starting or draining node answers
// 503 with Retry-After before the upgrade.
package gateway
