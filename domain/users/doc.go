// Package users keeps the users of one partition in memory: for each user the id, the encoded profile and the times
// that caps count. A million users with a locale, a zone, four attributes, an endpoint and two counted deliveries cost
// some 270 MB ('go test -bench BenchmarkState -benchtime 1x ./domain/decide').
//
// The [Table] and its texts have no pointers, so the garbage collector does not look at single users: one collection
// with a million ids took 0.11 to 0.15 s on a busy machine, and 1.2 to 1.4 s with a map[string]string of them.
// Collections run every few seconds while a broadcast is walked.
//
// It is a hash table of its own because Go's maps cost more in the same run ('go test -bench Table ./domain/users', ids
// alone): at 41,666 users 36 B each, 62 B with a map[uint64]uint32 from hash to place, 48 B with a map[uint32]uint32,
// 79 B with a map[string]string; at a million 43, 72, 53 and 100 B. The smallest map would make a whole user 4 to 5%
// larger, and its lookups take 1.6 to 2.4 times as long.
package users
