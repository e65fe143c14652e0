// Package integration shows the whole system on real servers: every role a process of its own, Apache
// Kafka, Postgres, sockets, an APNs simulator; and everything that may fail, failing. One cluster and
// one system serve all its tests, which therefore run one after the other and tell their notifications
// apart by id. It holds no code of its own.
package integration
