// Package embedded owns the parts of a cluster that run inside one machine: a Kafka broker in this
// process and a Postgres beside it. `whisper dev` and the tests stand on them; production never does.
//
// Both keep their state under one folder each, survive a clean stop and a SIGKILL of everything, and
// leave nothing running when the process that started them is gone, however it went.
//
// The package knows nothing of Whisper's topics, tables or roles, and must not learn of them.
package embedded
