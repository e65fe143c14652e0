// Package consumers is how Whisper talks to Kafka: client options, the loop that every role consumes with, the
// publisher, dead letters, and the layout of topics. The roles live in its subfolders and decide what to do with a
// record; nothing in this package knows what a record means.
//
// What every role may rely on:
//
//   - A partition's records reach its Feed in order, from one goroutine.
//   - An offset is committed only after the role said that everything before it is settled ([Partition.Commit]). After a
//     crash Kafka hands out again what was not committed; nothing is lost.
//   - Publish calls done with nil only when all in-sync replicas have the record. Each record is written once and in the
//     order of its partition (idempotent producer).
//
// What is bounded, and by what:
//
//   - Records that wait for a Feed: [LoopConfig.MaxBufferedRecords] and MaxBufferedBytes for each partition. A partition
//     over them is paused. What the client has fetched by then comes on top: at most one answer of a broker.
//   - Records that Kafka has not acknowledged: 100,000 or 128 MiB for each [Publisher]. Publish waits above that.
//   - A compressed batch: 64 MiB when expanded. A larger one is skipped, with a dead letter.
//
// What is not bounded here: the memory that a role keeps for the records it has taken and not settled (a [Watermark] costs
// nine bytes for each). A role that works on many at once has its own bound.
package consumers
