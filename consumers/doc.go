// Package consumers is how Whisper talks Kafka, in one place: client options, the loop that every
// role consumes with, the publisher, dead letters, topic set-up. The roles live in its subfolders and
// decide what to do with a record; nothing in here knows what a record means.
//
// What every role may rely on:
//
//   - A partition's records reach its Feed in order, from one goroutine.
//   - An offset is committed only after the role said that everything before it is settled
//     ([Partition.Commit]); a crash therefore hands records out again, it never loses them.
//   - What is published is acknowledged by all in-sync replicas before done is called, in order per
//     partition and once per Publish (idempotent producer).
//   - Everything is bounded: a partition that is not consumed fast enough is paused.
package consumers
