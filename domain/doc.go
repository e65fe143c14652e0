// Package domain is the vocabulary of Whisper: ids, lanes, channels, statuses, reasons, receipts and frames. With the
// packages below it, it is all that Whisper means; everything else in the module is an adapter around it. None of them
// does I/O, reads a clock or starts a goroutine: the time is always a parameter.
//
// An arrow points at what is imported; all import this package, and none the other way round:
//
//	request ──► segment ──► profile ──► localtime ──► record
//	decide  ──► request, segment, template, category, users, profile
//
// record reads what upstream wrote; request, profile, template and category each own one kind of record; users keeps
// a partition's users in memory; decide decides.
//
// The way of one delivery:
//
//	accepted ─► scheduled ─► deferred ─► sent ─► delivered ─► read
//	        └──────────┴────────┴─► failed | suppressed | expired | cancelled
//
// [Status] says which of two facts about a delivery stands; [decide.State] decides what happens next.
package domain

//go:generate go tool -modfile=../tools/buf/go.mod buf generate --template ../buf.gen.yaml --output .. ..
