// Package client receives notifications from a Whisper gateway: it connects, acknowledges, drops what
// comes twice, and reconnects for as long as it is wanted. It owns no storage: which notifications the
// person has seen is the caller's to keep.
//
// Guarantees: a notification is acknowledged only after Handle returned nil or the channel's receiver took it, so
// what a crash interrupts comes again; what came again within the last Window notifications, by id and receipt, is
// acknowledged and dropped. Within a lane the order is the server's, and the most urgent lane's is handed over next.
//
// The connection is kept, and its pings answered, while a handler runs. What Read tells is kept while there is no connection,
// and told again where it is in doubt: see docs/clients.md, which has all promises, the back-off and the close codes.
//
// One client is one goroutine, another one while it hands over, a timer where its token is to be refreshed, and about
// 9 KiB: 10,000 fit into one process.
package client
