// Package decide holds the decisions about deliveries. [State.Decide] takes one [Input] and the time, and returns
// [Output]s: records to write, routes to nodes, pushes to send. It does no I/O and reads no clock, so a test or a
// simulation can play any history, and the same records always lead to the same decisions.
//
// [State] is a fold of one user partition's topics; one loop in consumers/dispatch owns it. Where to look:
//
//	inputs.go       what can happen; outputs.go: what can follow
//	decide.go       Decide: which input goes where; arrival, expiry, parking and settling of a delivery
//	checks.go       the checks of the policy in their order (quiet hours, caps, preferences, ...), with policy.go
//	advance.go      the way over the channels; attempts.go: what their outcomes lead to
//	feedback.go     what facts, presence and nodes tell
//	digest.go       gathering several notifications into one; counts.go: what caps count
//	window.go       duplicates
//	broadcast.go    a broadcast's walk over all users, and walk*.go: its steps, order, waiting and restore
//	retraction.go   taking a notification back; recall.go: from phones
//	tokens.go       whose device a push token is
//	reconsider.go   looking again at what waits when rules, profiles or endpoints change
//	aside.go        what is set aside when a decision meets a bug
package decide
