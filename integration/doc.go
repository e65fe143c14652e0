// Package integration tests the whole system on real servers: every role in its own process, Apache Kafka, Postgres,
// sockets and an APNs simulator, with faults in each of them. All tests share one cluster and one system, so they run
// one after another and use ids of their own. The package has no code of its own.
package integration
