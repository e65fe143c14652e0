// Package domain is what Whisper means: requests, deliveries, attempts, facts, and the decisions
// about them. It is pure: it does no I/O, reads no clock and starts no goroutine; the time is always
// a parameter. Everything else in the module is an adapter around it.
//
// The way of one delivery:
//
//	accepted ─► scheduled ─► deferred ─► sent ─► delivered ─► read
//	        └──────────┴────────┴─► failed | suppressed | expired | cancelled
//
// [Status] says which of two facts about a delivery stands; [State] decides what happens next.
package domain

//go:generate go tool -modfile=../tools/buf/go.mod buf generate --template ../buf.gen.yaml --output .. ..
