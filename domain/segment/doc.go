// Package segment says whom a broadcast is for: an expression in CEL over a user's profile.
//
// [Compile] checks an expression and its cost. Most expressions compare a few fields with constants; those become closures
// over the encoded profile (fast.go), some ten times as quick as CEL's interpreter (go test -bench Segment
// ./domain/segment), which answers all others. A property test holds both to the same answers.
package segment
