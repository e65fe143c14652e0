// Package cli is what the subcommands of whisper share: the process they run in (Process), the flags that say where Kafka
// and Postgres are, reading and writing Kafka for a person who waits (Scan, Produce), and printing that can't command a
// terminal.
//
// It knows no subcommand and no role.
package cli
