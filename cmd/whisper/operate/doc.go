// Package operate has the subcommands that operators use on a running system, one file each: they read Kafka, Postgres or an
// operations port and print what is there, or write one record as upstream would.
//
// They hold nothing: each starts, answers and ends. None runs a role.
package operate
