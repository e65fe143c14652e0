// Package bench measures Whisper as its users meet it: real Kafka, every role a process of its own, the
// load made by another. Every figure comes with its yardstick, taken in the same run on the same
// machine. It is not part of any role.
package bench
