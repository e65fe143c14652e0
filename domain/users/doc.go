// Package users keeps the users of one partition in memory: of each the encoded profile and the times that caps count, in
// a hash table and an order to walk in, both without pointers. A million users cost some 270 MB, and the garbage
// collector does not look at them (go test -bench 'UserTable|Roster' ./domain/users).
package users
