// Package postgres holds what the projector and the read side share: how they connect, the names of a schema, where its
// checkpoints stand, and what an error of Postgres tells a person. It writes nothing.
package postgres
