// Package decide holds the decisions about deliveries. [State.Decide] takes one [Input] and the time, and returns
// [Output]s: records to write, routes to nodes, pushes to send. It does no I/O and reads no clock, so a test or a
// simulation can play any history, and the same records always lead to the same decisions.
//
// [State] is a fold of one user partition's topics; one loop in consumers/dispatch owns it. It is composed of types that
// know nothing of each other; each has a file with its invariants, and a test of its own:
//
//	presence.go     who is connected where, and which nodes live
//	templates.go    what texts are rendered from
//	counts.go       what counts against caps
//	window.go       duplicates
//	deliveries.go   the deliveries that are held: by hash, by user (user_index.go), by when they are due (schedule.go), and those
//	                that can be sent now but are too many for one decision (ready_queue.go)
//	broadcasts.go   the broadcasts that are not over, and whose turn it is
//	retractions.go  what is retracted, and the silent pushes that are due; audiences in audiences.go: whom broadcasts were for
//	tokens.go       whose device a push token is
//	replay.go       what facts told, before a restart, of what is handed out again
//	decision.go     the decision at hand: time, cause, outputs
//
// What is decided with several of them are methods of State. Where to look:
//
//	inputs.go       what can happen; outputs.go: what can follow
//	decide.go       Decide: which input goes where; arrival, expiry, parking and settling of a delivery
//	stages.go       where a delivery stands, what can happen to it, and what is done: the table; delivery.go: its fields
//	checks.go       the checks of the policy in their order (quiet hours, caps, preferences, ...), with policy.go
//	advance.go      the way over the channels; attempts.go: what their outcomes lead to; legs.go: all channels at once
//	feedback.go     what facts, presence and nodes tell
//	digest.go       gathering several notifications into one
//	render.go       texts, and waiting for a template
//	broadcast.go    a broadcast's walk over all users; walk_stages.go: where it stands, and what is done then: the table;
//	                walk*.go: its steps, order, waiting and restore
//	retraction.go   taking a notification back; recall.go: from phones
//	reconsider.go   looking again at what waits when rules, profiles or endpoints change
//	restore.go      what a restart puts back; aside.go: what is set aside when a decision meets a bug
//
// Broadcasts and retractions are not packages of their own: a step of either decides about deliveries ([State.judge],
// advance, suppress), and what a delivery comes to moves the broadcast on. As packages they would import each other, or
// need an interface as wide as State.
package decide
