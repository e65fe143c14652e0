// Package projections owns the role `project`: it folds the log's facts into Postgres, where analysts
// and the command line read them. It must not decide about deliveries, write facts, or stand in the way
// of one: with Postgres down the system goes on and this role catches up.
//
// The invariants, each of which would cost rows if it broke:
//
//   - Rows and checkpoints move in one transaction, and the checkpoint moves by compare-and-set. What
//     another projector (or an earlier try whose answer was lost) has written is skipped, never repeated.
//   - A transaction holds an advisory lock on each user partition that it writes, so that of all rows of
//     one partition there is one writer at a time: it may read a row, merge in Go and write the result.
//     Partition p of all topics belongs to one set of users, so the lock covers every topic; and the
//     group assigns partition p of all topics to one process, so nobody waits for it but in a rebalance.
//   - Merging is commutative, associative and idempotent ([row.merge], [attempt.merge]): any order and
//     any number of copies of a delivery's facts give the same rows, in whatever batches they come.
//   - Counts move by the difference between a row before and after, so they are as right as the rows.
//
// What it costs: 40,000 facts/s took two cores, Postgres's share included (BenchmarkProjector, beside its
// floors); most of it is Postgres's. In memory at most 2 · Writers · BatchFacts records wait; nothing is
// kept per user or delivery. It stops scaling where one Postgres stops taking writes; before that, more
// projectors share the partitions.
package projections
