// Package client receives notifications from a Whisper gateway. It connects, acknowledges, drops duplicates and
// reconnects until it is closed. It stores nothing: the caller keeps which notifications the person has seen.
//
// Guarantees: a notification is acknowledged only after Handle returned nil or the channel's receiver took it, so a
// notification that a crash interrupts is sent again. A duplicate of one of the last Window notifications, by id and
// receipt, is acknowledged and dropped. Within a lane the order is the server's, and the most urgent lane is handed
// over first.
//
// The connection stays open, and pings are answered, while a handler runs. Reports of Read are kept while there is no
// connection, and sent again when it is not certain that they arrived. docs/clients.md has all promises, the back-off
// and the close codes.
//
// A client costs one goroutine, a second one while it hands over a notification, a timer if its token is to be
// refreshed, and about 9 KiB: 10,000 clients fit into one process.
package client
