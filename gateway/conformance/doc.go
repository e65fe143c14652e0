// Package conformance is what a client of Whisper must do, as one list of scenarios (scenarios.json),
// and the stage to play them on: real gateways, each a process of its own that can be drained and
// killed, over an in-memory Kafka. It owns the stage and the list; each client brings an interpreter of
// the few steps that are its own (gateway/client in Go, gateway/sdk/typescript in Node and in a browser).
// It must not be part of anything that runs in production.
//
// A client connects to a front, as it would to a load balancer: the address stays while nodes come and
// go. The front passes bytes through, counts what it sees, and can refuse, fall silent, cut a connection
// between two frames, or put in a frame of its own where a real gateway can't be brought to send it.
//
// Dispatch is played: what a user has not acknowledged is sent again whenever a session of theirs opens,
// as the real one does.
package conformance
